//! A small tree of every layout, with the dirt that the published ones have.

use super::*;

/// Runs on a folder. Returns the images as split, label, kind and id, and the notices.
fn read_tree(folder: &Folder, pairs: &[(&str, Value)]) -> (Vec<String>, Vec<String>) {
    let context = TestContext::new();
    let files = run_on(&context, pairs, folder, IMAGES).unwrap();
    (listing(&files), context.notices())
}

/// The numbers of images of a split with a label.
fn count(listing: &[String], start: &str) -> usize {
    listing.iter().filter(|name| name.starts_with(start)).count()
}

const MARK: &[(u32, u32)] = &[(4, 5), (4, 6)];

#[test]
fn mvtec_is_also_the_shape_of_btad_and_of_the_prepared_visa() {
    let btad = Folder::new()
        .image("train/ok/0000.bmp.png")
        .image("test/ok/0001.png")
        .image("test/ko/0001.png")
        .mask("ground_truth/ko/0001.png", MARK);
    let (listed, notices) = read_tree(&btad, &[]);
    assert!(notices[0].contains("layout: mvtec"), "{notices:?}");
    assert_eq!(
        listed,
        [
            "test/defect/ko/test/ko/0001.png",
            "test/normal/test/ok/0001.png",
            "train/normal/train/ok/0000.bmp.png"
        ]
    );
    let own = Folder::new()
        .image("train/sound/0.png")
        .image("test/sound/1.png")
        .image("test/crack/2.png")
        .mask("ground_truth/crack/2_mask.png", MARK);
    assert!(failure(&[], &own).contains("`train/sound/*.png` (1)"));
    let (listed, _) = read_tree(&own, &[("normal_folders", "sound".into())]);
    assert_eq!((count(&listed, "test/defect/crack/"), count(&listed, "train/normal/")), (1, 1));
}

#[test]
fn masks_are_paired_by_folder_and_whole_stem() {
    // Sorting or searching for parts of names would accept these.
    let folder = Folder::new()
        .image("train/good/0.png")
        .image("test/a/1.png")
        .image("test/a/2.png")
        .mask("ground_truth/a/11_mask.png", MARK)
        .mask("ground_truth/a/12_mask.png", MARK);
    let error = failure(&[], &folder);
    assert!(
        error.contains("ground_truth/a/1_mask.png`; the nearest names: `ground_truth/a/11_mask.png`"),
        "{error}"
    );
    assert!(error.contains("12_mask.png` has no image"), "{error}");
    let mixed = Folder::new()
        .image("train/good/0.png")
        .image("test/a/1.png")
        .image("test/b/1.png")
        .mask("ground_truth/a/1_mask.png", MARK)
        .mask("ground_truth/b/1.png", MARK);
    assert!(failure(&[], &mixed).contains("some masks end in `_mask`"));
}

#[test]
fn mvtec_ad_2_takes_the_public_test_and_leaves_what_has_no_label() {
    let folder = Folder::new()
        .image("can/train/good/000_regular.png")
        .image("can/validation/good/001_regular.png")
        .image("can/test_public/good/100_regular.png")
        .image("can/test_public/bad/200_overexposed.png")
        .mask("can/test_public/ground_truth/bad/200_overexposed_mask.png", MARK)
        .image("can/test_private/400_regular.png")
        .image("can/test_private_mixed/500_regular.png");
    let (listed, notices) = read_tree(&folder, &[]);
    assert_eq!(
        listed,
        [
            "test/defect/any/test_public/bad/200_overexposed.png",
            "test/normal/test_public/good/100_regular.png",
            "train/normal/train/good/000_regular.png",
            "validation/normal/validation/good/001_regular.png"
        ]
    );
    let left_out = notices.iter().find(|line| line.starts_with("left out")).unwrap();
    assert!(left_out.contains("1 file `can/test_private/*.png`: without a label"), "{left_out}");
}

#[test]
fn loco_unites_the_masks_of_an_image_and_knows_their_levels() {
    let codes = r#"[{"defect_name": "a", "pixel_value": 255}, {"defect_name": "b", "pixel_value": 254}]"#;
    let folder = Folder::new()
        .image("train/good/000.png")
        .image("validation/good/000.png")
        .image("test/good/000.png")
        .image("test/logical_anomalies/000.png")
        .mask("ground_truth/logical_anomalies/000/000.png", &[(1, 1)])
        .mask("ground_truth/logical_anomalies/000/001.png", &[(2, 9)])
        .text("defects_config.json", codes);
    let context = TestContext::new();
    let files = run_on(&context, &[], &folder, IMAGES).unwrap();
    let all = labelled(&files);
    let mask = read_mask(all["test/logical_anomalies/000"].mask).unwrap();
    assert_eq!(mask.iter().map(|&level| usize::from(level == 255)).sum::<usize>(), 2);
    assert!(!context.notices().iter().any(|line| line.contains("grey level")), "{:?}", context.notices());
    let other = folder.grey_mask("ground_truth/logical_anomalies/000/001.png", &[(2, 9, 100)]);
    let error = failure(&[], &other);
    assert!(error.contains("has the level 100, which the data set does not list"), "{error}");
    let autovi = Folder::new()
        .image("train/good/0089.png")
        .image("test/good/0090.png")
        .image("test/blue_hoop/0089.png")
        .mask("ground_truth/blue_hoop/0089/0000.png", MARK);
    assert!(read_tree(&autovi, &[]).1[0].contains("autovi"));
}

#[test]
fn visa_reads_levels_as_classes_and_its_shipped_split() {
    let split = "object,split,label,image,mask\r\n\
                 candle,train,normal,candle/Data/Images/Normal/000.JPG,\r\n\
                 candle,test,normal,candle/Data/Images/Normal/001.JPG,\r\n\
                 candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\r\n";
    let visa = || {
        Folder::new()
            .image("candle/Data/Images/Normal/000.JPG")
            .image("candle/Data/Images/Normal/001.JPG")
            .image("candle/Data/Images/Normal/002.JPG")
            .image("candle/Data/Images/Anomaly/000.JPG")
            .grey_mask("candle/Data/Masks/Anomaly/000.png", &[(1, 1, 3), (1, 2, 9)])
    };
    let (listed, notices) = read_tree(&visa().text("split_csv/1cls.csv", split), &[]);
    assert_eq!(
        listed,
        ["test/defect/any/Anomaly/000.png", "test/normal/Normal/001.png", "train/normal/Normal/000.png"]
    );
    assert!(notices.iter().any(|line| line.contains("not in the split file")), "{notices:?}");
    assert!(!notices.iter().any(|line| line.contains("grey level")), "{notices:?}");
    let (_, notices) = read_tree(&visa(), &[("test_share", 0.5.into())]);
    assert!(notices.iter().any(|line| line.contains("the data set has no split")), "{notices:?}");
    let wrong = split.replace("train,normal", "train,anomaly");
    let error = failure(&[], &visa().text("split_csv/1cls.csv", &wrong));
    assert!(error.contains("disagree on a label") && error.contains("1cls.csv"), "{error}");
    let two = visa().image("pcb1/Data/Images/Normal/000.JPG").text("split_csv/1cls.csv", split);
    assert!(failure(&[], &two).contains("several sets: `candle`, `pcb1`"));
    assert_eq!(read_tree(&two, &[("category", "candle".into())]).0.len(), 3);
}

#[test]
fn real_iad_is_read_from_its_list() {
    let list = r#"{"meta": {"prefix": "audiojack", "normal_class": "OK"},
        "train": [{"category": "audiojack", "anomaly_class": "OK", "image_path": "OK/S0001/a_C1.jpg", "mask_path": null}],
        "test": [
            {"category": "audiojack", "anomaly_class": "OK", "image_path": "OK/S0002/a_C1.jpg", "mask_path": null},
            {"category": "audiojack", "anomaly_class": "HS", "image_path": "NG/HS/S0001/a_C1.jpg",
             "mask_path": "NG/HS/S0001/a_C1.png"},
            {"category": "audiojack", "anomaly_class": "HS", "image_path": "NG/HS/S0001/a_C2.jpg", "mask_path": null}]}"#;
    let folder = Folder::new()
        .image("realiad_1024/audiojack/OK/S0001/a_C1.jpg")
        .image("realiad_1024/audiojack/OK/S0002/a_C1.jpg")
        .image("realiad_1024/audiojack/NG/HS/S0001/a_C1.jpg")
        .image("realiad_1024/audiojack/NG/HS/S0001/a_C2.jpg")
        .mask("realiad_1024/audiojack/NG/HS/S0001/a_C1.png", MARK)
        .text("realiad_jsons/realiad_jsons/audiojack.json", list);
    let (listed, notices) = read_tree(&folder, &[]);
    assert_eq!((count(&listed, "test/defect/HS/"), count(&listed, "test/normal/")), (2, 1));
    assert!(
        notices.iter().any(|line| line.contains("a_C2.jpg") && line.contains("without a region")),
        "{notices:?}"
    );
    let (listed, _) = read_tree(&folder, &[("empty_mask", "normal".into())]);
    assert_eq!(count(&listed, "test/defect/"), 1);
    std::fs::remove_file(folder.path("realiad_1024/audiojack/OK/S0002/a_C1.jpg")).unwrap();
    assert!(failure(&[], &folder).contains("lists `OK/S0002/a_C1.jpg`, which is not there"));
}

#[test]
fn dagm_is_read_from_its_lists() {
    let labels = "1\n1\t0\t0576.PNG\t0\t0\n2\t1\t0595.PNG\t0\t0595_label.PNG\n";
    let mut folder = Folder::new();
    for split in ["Train", "Test"] {
        folder = folder
            .image(&format!("Class1/{split}/0576.PNG"))
            .image(&format!("Class1/{split}/0595.PNG"))
            .mask(&format!("Class1/{split}/Label/0595_label.PNG"), MARK)
            .text(&format!("Class1/{split}/Label/Labels.txt"), labels)
            .text(&format!("Class1/{split}/Thumbs.db"), "");
    }
    let (listed, notices) = read_tree(&folder, &[]);
    assert_eq!(listed.len(), 4);
    assert_eq!((count(&listed, "train/defect/"), count(&listed, "test/normal/")), (1, 1));
    assert!(notices.iter().any(|line| line.contains("coarse ellipses")));
    std::fs::remove_file(folder.path("Class1/Test/Label/0595_label.PNG")).unwrap();
    assert!(failure(&[], &folder).contains("line 3: there is no mask `Label/0595_label.PNG`"));
}

#[test]
fn magnetic_tiles_pair_by_extension_and_warn_of_grey_edges() {
    let mut folder = Folder::new();
    for number in 0..20 {
        folder = folder.sized_image(&format!("MT_Free/Imgs/exp{number}.jpg"), 20, 30 + number).sized_mask(
            &format!("MT_Free/Imgs/exp{number}.png"),
            20,
            30 + number,
        );
    }
    let folder = folder
        .image("MT_Blowhole/Imgs/exp1_num_1.jpg")
        .grey_mask("MT_Blowhole/Imgs/exp1_num_1.png", &[(1, 1, 255), (1, 2, 90)])
        .image("MT_Uneven/Imgs/exp3_num_45042.jpg")
        .mask("MT_Uneven/Imgs/exp3_num_45042.png", &[]);
    let (listed, notices) = read_tree(&folder, &[]);
    assert_eq!((count(&listed, "test/defect/Blowhole/"), count(&listed, "test/defect/Uneven/")), (1, 1));
    assert_eq!(count(&listed, "test/normal/") + count(&listed, "train/normal/"), 20);
    assert!(
        notices.iter().any(|line| line.contains("90, 255") && line.contains("mask_threshold = 127")),
        "{notices:?}"
    );
    assert!(notices.iter().any(|line| line.contains("exp3_num_45042") && line.contains("without a region")));
    let lonely = folder.image("MT_Free/Imgs/exp99.jpg");
    assert!(failure(&[], &lonely).contains("exp99.jpg` has no mask"));
}

#[test]
fn aitex_has_images_with_two_masks_and_one_without() {
    let mut folder = Folder::new();
    for number in 0..20 {
        let name = format!("NODefect_images/2306881-210020u/00{number:02}_000_00.png");
        folder = folder.sized_image(&name, 20, 30 + number);
    }
    let folder = folder
        .image("Defect_images/0044_019_04.png")
        .mask("Mask_images/0044_019_04_mask1.png", &[(1, 1)])
        .mask("Mask_images/0044_019_04_mask2.png", &[(2, 2)])
        .image("Defect_images/0100_025_08.png");
    let (listed, notices) = read_tree(&folder, &[]);
    assert_eq!((count(&listed, "test/defect/019/"), count(&listed, "test/defect/025/")), (1, 1));
    assert!(notices.iter().any(|line| line.contains("0100_025_08")), "{notices:?}");
    assert!(failure(&[], &folder.image("Defect_images/0001_002_00.png")).contains("0001_002_00_mask.png"));
}

#[test]
fn classified_folders_of_any_names_are_read() {
    for (normal, bad) in [("good", "bad"), ("OK", "NG"), ("ok", "ko"), ("Normal", "Anomaly")] {
        let mut folder = Folder::new();
        for number in 0..20 {
            folder = folder
                .sized_image(&format!("parts/{normal}/{number} ü.png"), 20, 30 + number)
                .sized_image(&format!("parts/{bad}/{number}.JPG"), 21, 30 + number);
        }
        let (listed, notices) = read_tree(&folder, &[]);
        assert_eq!(count(&listed, "test/defect/any/"), 20, "{normal}");
        let normals = (count(&listed, "train/normal/"), count(&listed, "test/normal/"));
        assert!(normals.0 > normals.1 && normals.1 > 0 && normals.0 + normals.1 == 20, "{normals:?}");
        assert!(notices.iter().any(|line| line.starts_with("read: `test`")), "{notices:?}");
    }
    let masks = Folder::new().image("good/1.png").image("dent/2.png").mask("masks/dent/2_mask.png", MARK);
    let (listed, _) = read_tree(&masks, &[("test_share", 0.0.into())]);
    assert_eq!(listed, ["test/defect/dent/dent/2.png", "train/normal/good/1.png"]);
    let error = failure(&[], &masks.image("dent/3.png"));
    assert!(error.contains("dent/3.png` has no mask"), "{error}");
    let two = Folder::new().image("good/1.png").image("ok/2.png").image("bad/3.png");
    assert!(failure(&[], &two).contains("no known layout"));
}

#[test]
fn a_drawn_split_moves_no_other_image() {
    let tree = |numbers: std::ops::Range<u32>| {
        let mut folder = Folder::new().image("bad/1.png").image("bad/2.png");
        for number in numbers {
            folder = folder.sized_image(&format!("good/{number}.png"), 20, 40 + number);
        }
        read_tree(&folder, &[("test_share", 0.5.into())]).0
    };
    let (few, many) = (tree(0..20), tree(0..30));
    assert!(few.iter().all(|name| many.contains(name)), "{few:?} {many:?}");
    let seeds: Vec<_> = (0..2)
        .map(|seed| {
            let mut folder = Folder::new().image("bad/1.png");
            for number in 0..20 {
                folder = folder.sized_image(&format!("good/{number}.png"), 20, 40 + number);
            }
            read_tree(&folder, &[("split_seed", int(seed)), ("test_share", 0.5.into())]).0
        })
        .collect();
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn layouts_that_are_not_read_are_refused_by_name() {
    let cases: [(&str, &[&str]); 10] = [
        ("mvtec_3d", &["train/good/rgb/000.png", "train/good/xyz/000.tiff"]),
        ("kaputt", &["query-train.parquet", "query-image/data/train/query-data/image/1.jpg"]),
        ("bmad", &["Brain/train/good/img/1.png", "Brain/test/Ungood/img/2.png"]),
        ("severstal", &["train_images/0002cc93b.jpg", "train.csv"]),
        ("dagm_competition", &["Class1/1.png", "Class1_def/1.png", "Class1_def/labels.txt"]),
        ("deep_pcb", &["PCBData/group00041/00041/00041000_temp.jpg"]),
        ("elpv", &["images/cell0001.png", "labels.csv"]),
        ("neu", &["Cr_1.bmp", "In_1.bmp"]),
        ("voc", &["JPEGImages/1.jpg", "SegmentationClass/1.png"]),
        ("cvat", &["annotations.xml", "1.jpg"]),
    ];
    for (layout, names) in cases {
        let folder = names.iter().fold(Folder::new(), |folder, name| folder.text(name, ""));
        let error = failure(&[], &folder);
        assert!(error.contains(&format!("the layout `{layout}`, which is not read")), "{layout}: {error}");
    }
    // None of them can be asked for.
    assert_eq!(
        super::read(&[("layout", "bmad".into())]).1.first().map(Problem::code),
        Some("unknown_choice")
    );
}

#[test]
fn names_that_differ_only_in_case_are_refused() {
    let folder = Folder::new().ksdd2("").image("train/a1.png").mask("train/a1_GT.png", &[]);
    let folder = folder.image("train/A1.png").mask("train/A1_GT.png", &[]);
    assert!(failure(&[], &folder).contains("differ only in case"));
}
