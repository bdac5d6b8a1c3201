//! Tests against the pixels that the tools give (`tests/golden/polygons.py`), and of what they have in common.

use super::*;

/// A line of the table: rule, kind, size, the outline as text, and the marks.
struct Case {
    rule: PixelRule,
    kind: String,
    text: String,
    right: Raster,
}

impl Case {
    fn points(&self) -> Vec<Point> {
        let numbers: Vec<f64> = self.text.split_whitespace().map(|word| word.parse().unwrap()).collect();
        numbers.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
    }

    fn blank(&self) -> Raster {
        Raster::new(self.right.height, self.right.width)
    }
}

fn golden() -> Vec<Case> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/polygons.txt");
    let table = std::fs::read_to_string(path).unwrap();
    let case = |line: &str| {
        let [head, text, runs] = line.split(" : ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let [rule, kind, height, width] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let rule = match rule {
            "coco" => PixelRule::Coco,
            "labelme" => PixelRule::LabelMe,
            "opencv" => PixelRule::OpenCv,
            "centre" => PixelRule::Centre,
            other => panic!("{other}"),
        };
        let mut right = Raster::new(height.parse().unwrap(), width.parse().unwrap());
        let (mut at, mut level) = (0, 0);
        for length in runs.split(' ').map(|word| word.parse::<usize>().unwrap()) {
            right.marks[at..at + length].fill(level);
            (at, level) = (at + length, 255 - level);
        }
        assert_eq!(at, right.marks.len(), "{line}");
        Case { rule, kind: kind.to_owned(), text: text.to_owned(), right }
    };
    table.lines().filter(|line| !line.starts_with('#')).map(case).collect()
}

fn differences(left: &Raster, right: &Raster) -> usize {
    left.marks.iter().zip(&right.marks).filter(|(left, right)| left != right).count()
}

#[test]
fn rings_cover_the_pixels_that_each_tool_gives_them() {
    let mut wrong = Vec::new();
    let mut seen = std::collections::BTreeMap::new();
    for case in golden().iter().filter(|case| case.kind == "ring") {
        let mut drawn = case.blank();
        fill_ring(case.rule, &case.points(), &mut drawn);
        *seen.entry(format!("{:?}", case.rule)).or_insert(0) += 1;
        let count = differences(&drawn, &case.right);
        if count > 0 {
            wrong.push(format!("{:?} {}: {count} px differ", case.rule, case.text));
        }
    }
    assert!(seen.len() == 4 && seen.values().all(|&count| count > 70), "{seen:?}");
    assert!(wrong.is_empty(), "{} of {seen:?}: {wrong:#?}", wrong.len());
}

#[test]
fn rectangles_and_circles_are_those_of_labelme() {
    for case in golden() {
        let mut drawn = case.blank();
        match (case.kind.as_str(), &case.points_if_any()[..]) {
            ("rectangle", &[a, b]) => fill_rectangle([a, b], &mut drawn),
            ("circle", &[centre, rim]) => fill_circle(centre, rim, &mut drawn),
            _ => continue,
        }
        assert_eq!(differences(&drawn, &case.right), 0, "{} {}", case.kind, case.text);
    }
}

impl Case {
    fn points_if_any(&self) -> Vec<Point> {
        if self.kind == "runs" { Vec::new() } else { self.points() }
    }
}

#[test]
fn a_square_of_ten_has_the_documented_number_of_pixels() {
    let square = [[10.0, 10.0], [20.0, 10.0], [20.0, 20.0], [10.0, 20.0]];
    let count = |rule, ring: &[Point]| {
        let mut drawn = Raster::new(30, 30);
        fill_ring(rule, ring, &mut drawn);
        drawn.marks.iter().map(|&mark| usize::from(mark == 255)).sum::<usize>()
    };
    let rules = [PixelRule::Coco, PixelRule::Centre, PixelRule::LabelMe, PixelRule::OpenCv];
    assert_eq!(rules.map(|rule| count(rule, &square)), [100, 100, 121, 121]);
    // A hairline: COCO and exact centres lose it, OpenCV keeps it, LabelMe tears it.
    let hairline = [[3.0, 3.0], [27.0, 13.0], [3.0, 3.0]];
    assert_eq!(count(PixelRule::Coco, &hairline), 0);
    assert_eq!(count(PixelRule::Centre, &hairline), 0);
    assert_eq!(count(PixelRule::OpenCv, &hairline), 25);
}

#[test]
fn the_direction_and_the_first_point_of_a_ring_do_not_count() {
    for case in golden().iter().filter(|case| case.kind == "ring" && case.rule == PixelRule::Centre) {
        let mut points = case.points();
        points.reverse();
        points.rotate_left(1);
        let mut drawn = case.blank();
        fill_ring(case.rule, &points, &mut drawn);
        assert_eq!(differences(&drawn, &case.right), 0, "{}", case.text);
    }
}

#[test]
fn neighbours_share_no_pixel_and_leave_none_out() {
    // Their common edges run through centres of pixels.
    let corners = [[0.5, 0.5], [20.5, 0.5], [20.5, 16.5], [0.5, 16.5], [10.5, 8.5]];
    let mut counts = vec![0; 24 * 25];
    for [a, b] in [[0, 1], [1, 2], [2, 3], [3, 0]] {
        let mut drawn = Raster::new(24, 25);
        fill_ring(PixelRule::Centre, &[corners[a], corners[b], corners[4]], &mut drawn);
        counts.iter_mut().zip(&drawn.marks).for_each(|(count, &mark)| *count += usize::from(mark == 255));
    }
    assert_eq!(counts.iter().max(), Some(&1));
    assert_eq!(counts.iter().sum::<usize>(), 20 * 16);
}

#[test]
fn discs_hold_the_centres_within_their_radius() {
    for (x, y, radius) in [(10.0, 9.0, 4.2), (3.3, 2.9, 5.0), (0.0, 0.0, 0.4), (15.5, 12.5, 0.0)] {
        let mut drawn = Raster::new(20, 25);
        fill_disc([x, y], radius, &mut drawn);
        for (index, &mark) in drawn.marks.iter().enumerate() {
            let (row, column) = ((index / 25) as f64 + 0.5, (index % 25) as f64 + 0.5);
            assert_eq!(mark == 255, (column - x).hypot(row - y) <= radius, "{row} {column}");
        }
    }
}

#[test]
fn nothing_is_drawn_outside_of_the_image() {
    let far = [[-50.0, -70.0], [90.0, -3.0], [40.0, 80.0], [-20.0, 30.0]];
    for rule in [PixelRule::Coco, PixelRule::LabelMe, PixelRule::OpenCv, PixelRule::Centre] {
        for (height, width) in [(1, 1), (3, 9), (0, 5)] {
            let mut drawn = Raster::new(height, width);
            fill_ring(rule, &far, &mut drawn);
            fill_ring(rule, &[], &mut drawn);
        }
    }
}
