//! What `explain` says of every kind of change, and why two variants do not share a task.

use crate::project::Project;

/// What `explain` prints about the manifest.
fn why(project: &Project, arguments: &[&str]) -> String {
    project.stdout(&[&["explain", "m.toml"], arguments].concat())
}

/// What a change is, the stage that is asked about, and what makes it.
type Change<'a> = (&'a str, &'a str, &'a dyn Fn(&Project));

/// Makes one change after another to a project that has run; after each, what `explain` says of the stage.
fn after(changes: &[Change<'_>]) -> String {
    let project = Project::small();
    let whole = std::fs::read_to_string(project.path("m.toml")).unwrap();
    let mut text = format!("# nothing has run\n{}", why(&project, &["images"]));
    project.run("m.toml", &[]);
    for (what, stage, change) in changes {
        change(&project);
        text = format!("{text}# {what}\n{}", why(&project, &[stage]));
        project.write("m.toml", &whole);
    }
    text
}

fn filtered(check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"of \d{4}-\d\d-\d\dT[\d:]+", "of [time]");
    settings.bind(check);
}

#[test]
#[expect(clippy::too_many_lines, reason = "most of them are what is printed")]
fn every_kind_of_change_is_named() {
    let edit = |old: &'static str, new: &'static str| move |project: &Project| project.edit(old, new);
    let image = "data/train/10000.png";
    let text = after(&[
        ("nothing has changed", "result", &|_| {}),
        ("a field", "normal_bank", &edit("ratio = 0.2", "ratio = 0.3")),
        ("a field that is new", "normal_bank", &edit("ratio = 0.2", "ratio = 0.2\nprojection = 0")),
        ("the seed", "normal_bank", &edit("seed = 1", "seed = 2")),
        ("another network", "features", &edit("\"resnet18\"", "\"resnet50\"")),
        (
            "a table within",
            "images",
            &edit("layout = \"ksdd2\"", "layout = \"ksdd2\"\ncrops = { size = 32 }"),
        ),
        (
            "a selection: the files that are read",
            "normal_bank",
            &edit("label = \"normal\" }", "label = \"any\" }"),
        ),
        (
            "an input that is new",
            "defect_bank",
            &edit(
                "min_overlap = 0.1 }",
                "min_overlap = 0.1 }\ndrop_near_normal = 0.5\nnormal = \"normal_bank\"",
            ),
        ),
        (
            "an input that is gone",
            "model",
            &edit("\"defect_bank\"\nfeatures = \"features\"", "\"defect_bank\""),
        ),
        ("a bootstrap", "result", &edit("bootstrap = 20", "bootstrap = 30")),
        ("an image that is new", "images", &|project: &Project| {
            for name in ["png", "GT"] {
                let (from, to) = match name {
                    "png" => (image.to_owned(), "data/train/19999.png"),
                    _ => ("data/train/10000_GT.png".to_owned(), "data/train/19999_GT.png"),
                };
                std::fs::copy(project.path(from), project.path(to)).unwrap();
            }
        }),
        ("an image that is gone", "images", &|project: &Project| {
            for name in ["19999.png", "19999_GT.png", "10001.png", "10001_GT.png"] {
                std::fs::remove_file(project.path(format!("data/train/{name}"))).unwrap();
            }
        }),
        ("an image that changed, and what waits for it", "result", &|project: &Project| {
            std::fs::copy(project.path("data/train/10002.png"), project.path(image)).unwrap();
        }),
    ]);
    filtered(|| {
        insta::assert_snapshot!(text, @r#"
    # nothing has run
    images: would run: no task of this kind has a record here
    # nothing has changed
    result (bank=single,augment=none): would not run: its result is in the cache
    result (bank=single,augment=cutpaste): would not run: its result is in the cache
    result (bank=dual,augment=none): would not run: its result is in the cache
    result (bank=dual,augment=cutpaste): would not run: its result is in the cache
    # a field
    normal_bank: would run: differs from `normal_bank` of [time] in
        ratio: 0.2 -> 0.3
    # a field that is new
    normal_bank: would run: differs from `normal_bank` of [time] in
        projection: 128 -> 0
    # the seed
    normal_bank: would run: differs from `normal_bank` of [time] in
        seed: 1 -> 2
    # another network
    features[images]: would run: differs from `features` of [time] in
        backbone: resnet18 -> resnet50
    features[augmented] (augment=cutpaste): would run: differs from `features` of [time] in
        backbone: resnet18 -> resnet50
    # a table within
    images: would run: differs from `images` of [time] in
        crops: absent -> { min_side = 1, padding = 1, size = 32 }
    # a selection: the files that are read
    normal_bank: would run: differs from `normal_bank` of [time] in
        input `features[0]`: 3 files differ
          added blocks/train/10006.safetensors
          added blocks/train/10007.safetensors
          added blocks/train/10008.safetensors
    # an input that is new
    defect_bank (bank=dual,augment=none): would run: differs from `defect_bank` of [time] in
        drop_near_normal: absent -> 0.5
        input `normal`: new
    defect_bank (bank=dual,augment=cutpaste): would run: differs from `defect_bank` of [time] in
        drop_near_normal: absent -> 0.5
        input `normal`: new
    # an input that is gone
    model (bank=single): would run: differs from `model` of [time] in
        threshold_images: 500 -> absent
        threshold_quantile: 0.995 -> absent
        input `features[0]`: gone
    model (bank=dual,augment=none): would run: differs from `model` of [time] in
        threshold_images: 500 -> absent
        threshold_quantile: 0.995 -> absent
        input `features[0]`: gone
    model (bank=dual,augment=cutpaste): would run: differs from `model` of [time] in
        threshold_images: 500 -> absent
        threshold_quantile: 0.995 -> absent
        input `features[0]`: gone
    # a bootstrap
    result (bank=single,augment=none): would run: differs from `result` of [time] in
        bootstrap: 20 -> 30
    result (bank=single,augment=cutpaste): does not run: equal to `result`, which runs for both
    result (bank=dual,augment=none): would run: differs from `result` of [time] in
        bootstrap: 20 -> 30
    result (bank=dual,augment=cutpaste): would run: differs from `result` of [time] in
        bootstrap: 20 -> 30
    # an image that is new
    images: would run: differs from `images` of [time] in
        input `input`: 2 files differ
          added train/19999.png
          added train/19999_GT.png
    # an image that is gone
    images: would run: differs from `images` of [time] in
        input `input`: 2 files differ
          removed train/10001.png
          removed train/10001_GT.png
    # an image that changed, and what waits for it
    result (bank=single,augment=none): waits for images, features[images], model
    result (bank=single,augment=cutpaste): waits for images, features[images], model
    result (bank=dual,augment=none): waits for images, features[images], model
    result (bank=dual,augment=cutpaste): waits for images, features[images], model
    images: would run: differs from `images` of [time] in
        input `input`: 3 files differ
          changed train/10000.png
          removed train/10001.png
          removed train/10001_GT.png
    features[images]: waits for images
    model (bank=single,augment=none): waits for images, features[images], normal_bank
    model (bank=single,augment=cutpaste): waits for images, features[images], normal_bank, augmented, features[augmented]
    model (bank=dual,augment=none): waits for images, features[images], normal_bank, defect_bank
    model (bank=dual,augment=cutpaste): waits for images, features[images], normal_bank, augmented, features[augmented], defect_bank
    normal_bank: waits for images, features[images]
    augmented (augment=cutpaste): waits for images
    features[augmented] (augment=cutpaste): waits for augmented
    defect_bank (bank=dual,augment=none): waits for images, features[images]
    defect_bank (bank=dual,augment=cutpaste): waits for images, features[images], augmented, features[augmented]
    "#);
    });
}

#[test]
fn lost_objects_and_equal_tasks_are_named() {
    let project = Project::small();
    project.run("m.toml", &[]);
    for object in project.objects() {
        std::fs::remove_file(object).unwrap();
    }
    let gone = why(&project, &["result", "--only", "bank=single"]);
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    project.edit(
        "[stages.features]",
        "[stages.again]\nkind = \"preprocess\"\ninput = \"surfaces\"\nlayout = \"ksdd2\"\n[stages.features]",
    );
    project.edit("images = [\"images\", \"augmented\"]", "images = [\"images\", \"again\", \"augmented\"]");
    let merged = why(&project, &["again"]);
    filtered(|| {
        insta::assert_snapshot!(format!("{gone}{merged}"), @r#"
    result (augment=none): would run: its objects, which the run's folder shows, are gone
    result (augment=cutpaste): would run: its objects, which the run's folder shows, are gone
    again: does not run: equal to `images`, which runs for both
    "#);
    });
}

#[test]
fn two_variants_are_compared() {
    let project = Project::small();
    let never = why(&project, &["result", "--between", "bank=dual,augment=none", "bank=single"]);
    project.run("m.toml", &[]);
    let ran = why(&project, &["result", "--between", "bank=dual", "bank=single"]);
    let shared = why(&project, &["normal_bank", "--between", "bank=dual", "bank=single"]);
    insta::assert_snapshot!(format!("# nothing has run\n{never}# has run\n{ran}# shared\n{shared}"), @r#"
    # nothing has run
    bank=dual,augment=none and bank=single,augment=none:
    result: not shared
        reads what is not shared: model
    model: not shared
        bank: dual -> single
        dual: weighted -> absent
        neighbours: absent -> 9
        reweight: absent -> paper
        reads what is not shared: defect_bank
    defect_bank: only in bank=dual,augment=none
    # has run
    bank=dual,augment=none and bank=single,augment=none:
    result: not shared
        input `model`: 2 files differ
          removed defect.safetensors
          changed model.json
        reads what is not shared: model
    model: not shared
        bank: dual -> single
        dual: weighted -> absent
        neighbours: absent -> 9
        reweight: absent -> paper
        input `defect`: gone
        reads what is not shared: defect_bank
    defect_bank: only in bank=dual,augment=none
    # shared
    bank=dual,augment=none and bank=single,augment=none:
    normal_bank: shared by both
    "#);
    let said = project.fails(&["explain", "m.toml", "result", "--between", "bank=dul", "bank=single"], 2);
    assert!(said.contains("no variant `bank=dul`"), "{said}");
}

#[test]
fn as_json_a_cause_has_old_and_new_values() {
    let project = Project::small();
    project.run("m.toml", &[]);
    project.edit("ratio = 0.2", "ratio = 0.3");
    let text = why(&project, &["normal_bank", "--json"]);
    let explained: serde_json::Value = serde_json::from_str(&text).unwrap();
    let task = &explained["tasks"][0];
    assert_eq!((task["task"].as_str(), task["state"].as_str()), (Some("normal_bank"), Some("miss")));
    assert!(task["reason"].as_str().unwrap().starts_with("would run: differs from"), "{task}");
    assert_eq!(task["cause"]["kind"], "differs");
    assert_eq!(
        task["cause"]["differences"],
        serde_json::json!([{ "kind": "field", "path": "ratio", "old": 0.2, "new": 0.3 }])
    );
}
