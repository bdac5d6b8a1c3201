//! Paths and addresses at ports, where the names of stages belong.

use super::*;

/// The message and the advice for the first mistake of a text.
fn advice(text: &str) -> (String, String) {
    let error = load_text(text).unwrap_err();
    let first = &error.diagnostics()[0];
    (first.message.clone(), first.help.clone().unwrap_or_default())
}

#[test]
fn a_path_at_a_port_says_which_stages_to_add() {
    insta::assert_snapshot!(said(&with(r#"[stages.features]
kind = "extract"
images = ["images", "/data/more"]
backbone = "resnet18"
weights = "/models/resnet18.pth"
"#)), @r#"
    patchflow::stage::path_not_stage

      × `images` must name a stage, not a file, folder or address (`/data/more`)
        ╭─[test.toml:9:21]
      8 │ kind = "extract"
      9 │ images = ["images", "/data/more"]
        ·                     ──────┬─────
        ·                           ╰── not a stage
     10 │ backbone = "resnet18"
        ╰────
      help: a stage of kind `download` provides files, and one of kind `preprocess` reads them as
            images. Write `"prepared_images"` here, and add
            [stages.images_files]
            kind = "download"
            path = "/data/more"
            [stages.prepared_images]
            kind = "preprocess"
            input = "images_files"

    patchflow::stage::path_not_stage

      × `weights` must name a stage, not a file, folder or address (`/models/resnet18.pth`)
        ╭─[test.toml:11:11]
     10 │ backbone = "resnet18"
     11 │ weights = "/models/resnet18.pth"
        ·           ───────────┬──────────
        ·                      ╰── not a stage
        ╰────
      help: a stage of kind `download` provides files. Write `"weights_files"` here, and add
            [stages.weights_files]
            kind = "download"
            path = "/models/resnet18.pth"
    "#);
}

#[test]
fn every_port_takes_names_of_stages_only() {
    let features = "[stages.features]\nkind = 'extract'\nimages = 'images'\nbackbone = 'resnet18'\n";
    let bank = "[stages.bank]\nkind = 'coreset'\nfeatures = 'features'\n";
    let ports = [
        ("[stages.more]\nkind = 'preprocess'\ninput = './folder'\n".to_owned(), "input", "[stages.input_files]"),
        ("[stages.more]\nkind = 'preprocess'\ninput = 'https://example.org/parts.zip'\n".to_owned(), "input", "url = "),
        (features.replace("'images'", "'/data/x'"), "images", "[stages.prepared_images]"),
        (features.replace("'images'", "'parts.zip'"), "images", "[stages.prepared_images]"),
        (format!("{features}weights = 'net.pth'\n"), "weights", "[stages.weights_files]"),
        (format!("{features}weights = 'images.pth'\n"), "images` has no output `pth", "[stages.weights_files]"),
        (format!("{features}{bank}select.set = '/data/x'\n"), "select.set", "[stages.set_files]"),
        (format!("{features}{bank}normal = './bank'\ndrop_near_normal = 0.5\n"), "normal", "of kind `coreset`"),
        (bank.replace("'features'", "'cache/features'"), "features", "of kind `extract`"),
        ("[stages.model]\nkind = 'fit'\nnormal = '../bank'\n".to_owned(), "normal", "of kind `coreset`"),
        (
            format!("{features}[stages.result]\nkind = 'evaluate'\nmodel = '~/model'\nfeatures = 'features'\nimages = 'images'\n"),
            "model",
            "of kind `fit`",
        ),
        (
            "[stages.notes]\nkind = 'command'\nrun = ['sh', 'a.sh']\ninputs.script = 'a.sh'\noutputs.o = 'files'\n".to_owned(),
            "inputs.script",
            "[stages.script_files]",
        ),
    ];
    for (more, field, added) in ports {
        let (message, help) = advice(&with(&more));
        assert!(message.contains(&format!("`{field}`")), "{message}\nof\n{more}");
        assert!(help.contains(added), "{help}\nof\n{more}");
    }
}

#[test]
fn a_path_among_the_values_of_an_axis_is_shown_there() {
    let text = with(
        "[grid.axes]\nfile = ['net', 'net.pth']\n[stages.net]\nkind = 'download'\npath = 'x'\n[stages.features]\n\
         kind = 'extract'\nimages = 'images'\nbackbone = 'resnet18'\nweights = '${file}'\n",
    );
    let (message, help) = advice(&text);
    assert!(message.ends_with("(axis `file` is `net.pth`)"), "{message}");
    assert!(help.contains("path = \"net.pth\""), "{help}");
}

/// What the advice says to add is a sound manifest.
#[test]
fn the_advice_can_be_typed() {
    let wrong = with(
        "[stages.features]\nkind = 'extract'\nimages = '/data/x'\nbackbone = 'resnet18'\nweights = 'seeded'\n",
    );
    let (_, help) = advice(&wrong);
    let (_, added) = help.split_once("add\n").unwrap();
    load_text(&format!("{}\n{added}\n", wrong.replace("/data/x", "prepared_images"))).unwrap();
}

#[test]
fn a_misspelt_output_keeps_its_suggestion() {
    let text = with(
        "[stages.tables]\nkind = 'command'\nrun = ['x']\noutputs = { csvs = 'files' }\n[stages.notes]\n\
         kind = 'command'\nrun = ['x']\ninputs.a = 'tables.csv'\noutputs.o = 'files'\n",
    );
    assert_eq!(advice(&text).1, "did you mean `csvs`?");
}
