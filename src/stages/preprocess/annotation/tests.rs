use super::*;

fn annotation(file: &File, shapes: Vec<Shape>) -> Annotation<'_> {
    let (rule, classes) = (PixelRule::Coco, BTreeSet::new());
    Annotation { file, rule, stated: Some((20, 30)), is_relative: false, shapes, box_count: 0, classes }
}

fn file() -> File {
    File { path: "a.json".into(), digest: None, size_bytes: 0, is_executable: false }
}

fn shape(outline: Outline) -> Shape {
    Shape { name: "shape 1".to_owned(), outline }
}

#[test]
fn everything_that_changes_a_pixel_or_an_error_changes_the_digest() {
    let file = file();
    let ring = vec![[1.0, 2.0], [5.0, 2.0], [5.0, 9.0]];
    let outlines = [
        Outline::Rings(vec![ring.clone()]),
        Outline::Rings(vec![ring.clone(), ring.clone()]),
        Outline::Rings(vec![vec![[1.0, 2.0], [5.0, 2.0], [5.0, 9.5]]]),
        Outline::Rectangle([ring[0], ring[2]]),
        Outline::Circle([ring[0], ring[2]]),
        Outline::Runs { height: 2, width: 3, lengths: vec![6] },
        Outline::Runs { height: 3, width: 2, lengths: vec![6] },
        Outline::Runs { height: 2, width: 3, lengths: vec![0, 6] },
        Outline::Bitmap { corners: [ring[0], ring[2]], encoded: vec![1] },
        Outline::Bitmap { corners: [ring[0], ring[2]], encoded: vec![2] },
    ];
    let mut found: Vec<Annotation<'_>> =
        outlines.into_iter().map(|outline| annotation(&file, vec![shape(outline)])).collect();
    let first = found[0].clone();
    found.push(Annotation { shapes: vec![first.shapes[0].clone(); 2], ..first.clone() });
    found.push(Annotation { shapes: Vec::new(), ..first.clone() });
    found.push(Annotation { rule: PixelRule::Centre, ..first.clone() });
    found.push(Annotation { stated: None, ..first.clone() });
    found.push(Annotation { stated: Some((30, 20)), ..first.clone() });
    found.push(Annotation { is_relative: true, ..first.clone() });
    found.push(Annotation { box_count: 1, ..first.clone() });
    let digests: BTreeSet<String> = found.iter().map(Annotation::digest_text).collect();
    assert_eq!(digests.len(), found.len());
    let mut renamed = Annotation { classes: BTreeSet::from(["dent".to_owned()]), ..first.clone() };
    renamed.shapes[0].name = "shape 2".to_owned();
    assert_eq!(renamed.digest_text(), first.digest_text(), "names change no pixel");
}

#[test]
fn paths_of_other_systems_are_resolved_within_the_input() {
    assert_eq!(resolved("a/b", "..\\imgs\\1.jpg").as_deref(), Some("a/imgs/1.jpg"));
    assert_eq!(resolved("", "./1.jpg").as_deref(), Some("1.jpg"));
    assert_eq!(resolved("a", "../../1.jpg"), None);
}

#[test]
fn an_annotation_of_the_unturned_image_is_explained() {
    let file = file();
    let outline = Outline::Rings(vec![vec![[1.0, 2.0], [5.0, 2.0], [5.0, 9.0]]]);
    let of_unturned = annotation(&file, vec![shape(outline)]);
    let error = of_unturned.draw(Canvas { size: (20, 30), is_turned: true }, &file).unwrap_err();
    assert!(error.to_string().contains("describes an image of 20×30 px"), "{error}");
    assert!(error.help().unwrap_or_default().contains("EXIF orientation"), "{error:?}");
    assert!(of_unturned.draw(Canvas { size: (30, 20), is_turned: true }, &file).is_ok());
}
