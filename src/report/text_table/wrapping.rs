//! Text on lines of a given width.

use unicode_width::UnicodeWidthStr;

/// Where a text is wrapped, after the character.
const ENDS_OF_PARTS: &str = " ,;/";
/// Where a text is wrapped if its parts are too long.
const MARKS: &str = "_-=:.[";

/// Wraps a text to lines of at most `width` columns: after a space, a comma or a slash; what is too long for that after
/// another mark of punctuation, and else anywhere.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    text.split('\n').flat_map(|line| wrapped_at(line, width, &[ENDS_OF_PARTS, MARKS])).collect()
}

/// Wraps a line after the marks of the first group, and pieces that are too long after those of the next one.
fn wrapped_at(line: &str, width: usize, marks: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let pieces: Vec<&str> = match marks {
        [first, ..] => line.split_inclusive(|letter| first.contains(letter)).collect(),
        [] => line.split_inclusive(|_| true).collect(),
    };
    for piece in pieces {
        let begun = lines.last().map_or(0, |line| line.width());
        let length = piece.trim_end().width();
        if begun + length <= width {
            lines.last_mut().into_iter().for_each(|line| line.push_str(piece));
        } else if length <= width || marks.is_empty() {
            lines.push(piece.to_owned());
        } else {
            lines.extend(wrapped_at(piece, width, &marks[1..]));
        }
    }
    let is_first_empty = lines.len() > 1 && lines[0].is_empty();
    lines.into_iter().skip(usize::from(is_first_empty)).map(|line| line.trim_end().to_owned()).collect()
}

/// Wraps every line of a text that is longer than `width` at its spaces. What follows is indented by `indent` more than
/// the line. A word that is too long stays whole, so that paths and commands can be copied.
pub fn filled(text: &str, width: usize, indent: usize) -> String {
    let fill = |line: &str| {
        let margin = line.len() - line.trim_start().len();
        let (mut lines, mut begun) = (Vec::new(), String::new());
        for piece in line.split_inclusive(' ') {
            if begun.width() + piece.trim_end().width() > width && !begun.trim().is_empty() {
                lines.push(std::mem::replace(&mut begun, " ".repeat(margin + indent)).trim_end().to_owned());
            }
            begun.push_str(piece);
        }
        lines.push(begun);
        lines.join("\n")
    };
    text.split('\n').map(fill).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_after_punctuation_if_it_can_be() {
        let cases = [
            ("bank=single,augment=none", 13, vec!["bank=single,", "augment=none"]),
            ("wide_resnet50_2", 10, vec!["wide_", "resnet50_2"]),
            ("bank=dual,augment=cutpaste", 16, vec!["bank=dual,", "augment=cutpaste"]),
            ("features[augmented]", 14, vec!["features[", "augmented]"]),
            ("quickstart/20261129-021649-29876", 17, vec!["quickstart/", "20261129-021649-", "29876"]),
            ("waits for `images`", 10, vec!["waits for", "`images`"]),
            ("abcdefgh", 3, vec!["abc", "def", "gh"]),
            ("fits", 4, vec!["fits"]),
            ("漢字漢字", 5, vec!["漢字", "漢字"]),
            ("", 5, vec![""]),
        ];
        for (text, width, lines) in cases {
            assert_eq!(wrapped(text, width), lines, "{text} at {width}");
        }
    }

    #[test]
    fn prose_is_wrapped_at_spaces_alone() {
        let text = "  4 variants, 16 tasks: all cached\nshort\n/a/path/that/is/too/long for it";
        let shown = "  4 variants,\n    16 tasks:\n    all cached\nshort\n/a/path/that/is/too/long\n  for it";
        assert_eq!(filled(text, 15, 2), shown);
        assert_eq!(filled(text, 80, 2), text);
    }
}
