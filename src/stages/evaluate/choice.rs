//! Which images of an evaluation are drawn: not only the highest scores, but also the mistakes.

/// What a threshold makes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Judgement {
    /// A defect below the threshold.
    Missed,
    /// A normal image that reaches the threshold.
    FalseAlarm,
    /// A defect that reaches the threshold.
    Found,
    /// A normal image below the threshold.
    Passed,
}

impl Judgement {
    /// Judges an image by its score.
    pub(super) fn of(score: f32, is_defect: bool, threshold: f32) -> Self {
        match (is_defect, score >= threshold) {
            (true, false) => Self::Missed,
            (false, true) => Self::FalseAlarm,
            (true, true) => Self::Found,
            (false, false) => Self::Passed,
        }
    }

    /// The beginning of the names of its pictures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::FalseAlarm => "false_alarm",
            Self::Found => "found",
            Self::Passed => "passed",
        }
    }
}

/// An image that is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its index among the images.
    pub(super) image: usize,
    pub(super) judgement: Judgement,
    /// Its rank within its judgement, from 0.
    pub(super) rank: usize,
}

/// Chooses `count` images from their scores and whether they are defective.
///
/// Of the missed defects and of the false alarms each, a third of the pictures (rounded up) shows the worst: the lowest
/// scores of the former, the highest of the latter. The others show the highest scores among the defects that were found.
/// If there are fewer of one than its share, the others have more; normal images below the threshold come last.
pub(super) fn choose(images: &[(f32, bool)], threshold: f32, count: usize) -> Vec<Choice> {
    let of = |judgement: Judgement| -> Vec<usize> {
        let is_of = |&image: &usize| Judgement::of(images[image].0, images[image].1, threshold) == judgement;
        let mut some: Vec<usize> = (0..images.len()).filter(is_of).collect();
        some.sort_by(|&a, &b| images[b].0.total_cmp(&images[a].0));
        if judgement == Judgement::Missed {
            some.reverse();
        }
        some
    };
    let order = [Judgement::Missed, Judgement::FalseAlarm, Judgement::Found, Judgement::Passed];
    let ranked = order.map(|judgement| (judgement, of(judgement)));
    let third = count.div_ceil(3);
    let mut shares = [third.min(ranked[0].1.len()), 0, 0, 0];
    shares[1] = third.min(ranked[1].1.len()).min(count - shares[0]);
    // What is left goes to the defects that were found, then to more mistakes, then to the rest.
    for judgement in [2, 0, 1, 3] {
        let left = count - shares.iter().sum::<usize>();
        shares[judgement] += left.min(ranked[judgement].1.len() - shares[judgement]);
    }
    let chosen = |((judgement, some), share): ((Judgement, Vec<usize>), usize)| {
        let few = some.into_iter().take(share).enumerate();
        few.map(|(rank, image)| Choice { image, judgement, rank }).collect::<Vec<_>>()
    };
    ranked.into_iter().zip(shares).flat_map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normals with scores 1 to 6, defects with scores 3.5 to 8.5, threshold 5.
    fn images() -> Vec<(f32, bool)> {
        let normals = (1..=6).map(|score| (score as f32, false));
        normals.chain((3..=8).map(|score| (score as f32 + 0.5, true))).collect()
    }

    fn chosen(count: usize) -> Vec<(&'static str, f32)> {
        let all = images();
        choose(&all, 5.0, count).iter().map(|choice| (choice.judgement.name(), all[choice.image].0)).collect()
    }

    #[test]
    fn mistakes_are_shown_beside_the_highest_scores() {
        assert_eq!(
            chosen(6),
            [
                ("missed", 3.5),
                ("missed", 4.5),
                ("false_alarm", 6.0),
                ("false_alarm", 5.0),
                ("found", 8.5),
                ("found", 7.5),
            ]
        );
        assert_eq!(chosen(3), [("missed", 3.5), ("false_alarm", 6.0), ("found", 8.5)]);
    }

    #[test]
    fn a_score_equal_to_the_threshold_reaches_it() {
        assert_eq!(Judgement::of(5.0, false, 5.0), Judgement::FalseAlarm);
        assert_eq!(Judgement::of(5.0, true, 5.0), Judgement::Found);
    }

    #[test]
    fn unused_shares_go_to_the_others_and_each_image_is_drawn_once() {
        let perfect: Vec<(f32, bool)> = (0..10).map(|score| (score as f32, score >= 5)).collect();
        let verdicts: Vec<&str> =
            choose(&perfect, 5.0, 7).iter().map(|choice| choice.judgement.name()).collect();
        assert_eq!(verdicts, ["found", "found", "found", "found", "found", "passed", "passed"]);
        for count in 0..=14 {
            let choices = choose(&images(), 5.0, count);
            let mut drawn: Vec<usize> = choices.iter().map(|choice| choice.image).collect();
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!((drawn.len(), choices.len()), (count.min(12), count.min(12)), "{count}");
        }
        assert_eq!(choose(&[], 5.0, 3), []);
    }

    #[test]
    fn the_worst_mistakes_come_first() {
        let ranks: Vec<(usize, usize)> =
            choose(&images(), 5.0, 12).iter().map(|choice| (choice.image, choice.rank)).collect();
        assert_eq!(&ranks[..4], [(6, 0), (7, 1), (5, 0), (4, 1)]);
    }
}
