//! Pictures for people: outlines of masks, panels side by side, captions.

use font8x8::{BASIC_FONTS, GREEK_FONTS, LATIN_FONTS, UnicodeFonts};
use image::imageops::replace;
use image::{GrayImage, Rgb, RgbImage};

/// Distance between two panels in pixels.
const GAP_PX: u32 = 4;
/// Colour of the outline of a mask.
const OUTLINE: Rgb<u8> = Rgb([255, 40, 40]);
pub(super) const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([0, 0, 0]);
/// Width and height of a letter in dots.
const LETTER: u32 = 8;
/// Height of a line of a caption in dots.
const LINE: u32 = 11;
/// Letters that a line of a caption has at least; a narrower picture is widened.
const LETTERS: u32 = 28;
/// Width of a picture in pixels above which the dots of its letters are two pixels wide, and so on.
const WIDTH_OF_A_DOT: u32 = 640;

/// Draws the outline of a mask onto an image.
pub(super) fn outlined(mut image: RgbImage, mask: &GrayImage) -> RgbImage {
    let is_set = |x: i64, y: i64| {
        x >= 0
            && y >= 0
            && x < i64::from(mask.width())
            && y < i64::from(mask.height())
            && mask.get_pixel(x as u32, y as u32)[0] > 0
    };
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let (x, y) = (i64::from(x), i64::from(y));
        let is_near = (-1..=1).any(|dy| (-1..=1).any(|dx| is_set(x + dx, y + dy)));
        if is_near && !is_set(x, y) {
            *pixel = OUTLINE;
        }
    }
    image
}

/// Puts panels side by side.
pub(super) fn beside(panels: &[RgbImage]) -> RgbImage {
    let gaps = GAP_PX * (panels.len() as u32).saturating_sub(1);
    let width = panels.iter().map(RgbImage::width).sum::<u32>() + gaps;
    let height = panels.iter().map(RgbImage::height).max().unwrap_or(1);
    let mut picture = RgbImage::from_pixel(width.max(1), height, PAPER);
    let mut left = 0;
    for panel in panels {
        replace(&mut picture, panel, i64::from(left), 0);
        left += panel.width() + GAP_PX;
    }
    picture
}

/// Puts pictures below each other.
pub(super) fn below(pictures: &[RgbImage]) -> RgbImage {
    let gaps = GAP_PX * (pictures.len() as u32).saturating_sub(1);
    let height = pictures.iter().map(RgbImage::height).sum::<u32>() + gaps;
    let width = pictures.iter().map(RgbImage::width).max().unwrap_or(1);
    let mut sheet = RgbImage::from_pixel(width, height.max(1), PAPER);
    let mut top = 0;
    for picture in pictures {
        replace(&mut sheet, picture, 0, i64::from(top));
        top += picture.height() + GAP_PX;
    }
    sheet
}

/// Puts lines of text above a picture. Lines that are too long are continued on the next one.
pub(super) fn captioned(picture: &RgbImage, lines: &[String]) -> RgbImage {
    let dot = picture.width().div_ceil(WIDTH_OF_A_DOT).max(1);
    let width = picture.width().max(LETTERS * LETTER * dot);
    let most = (width / (LETTER * dot)) as usize;
    let letters: Vec<Vec<char>> = lines.iter().map(|line| line.chars().collect()).collect();
    let lines: Vec<&[char]> = letters.iter().flat_map(|line| line.chunks(most)).collect();
    let top = lines.len() as u32 * LINE * dot + GAP_PX;
    let mut captioned = RgbImage::from_pixel(width, top + picture.height(), PAPER);
    for (number, line) in lines.iter().enumerate() {
        for (column, letter) in line.iter().enumerate() {
            let at = (column as u32 * LETTER * dot, number as u32 * LINE * dot + dot);
            draw_letter(&mut captioned, *letter, at, dot);
        }
    }
    replace(&mut captioned, picture, 0, i64::from(top));
    captioned
}

/// Draws one letter with its left upper corner at `(x, y)`. A letter that the font does not have is drawn as `?`.
fn draw_letter(picture: &mut RgbImage, letter: char, (x, y): (u32, u32), dot: u32) {
    let glyph =
        BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter)).or_else(|| GREEK_FONTS.get(letter));
    let Some(rows) = glyph.or_else(|| BASIC_FONTS.get('?')) else { return };
    for (row, bits) in rows.iter().enumerate() {
        for column in (0..LETTER).filter(|column| bits >> column & 1 == 1) {
            for (down, right) in (0..dot).flat_map(|down| (0..dot).map(move |right| (down, right))) {
                picture.put_pixel(x + column * dot + right, y + row as u32 * dot + down, INK);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reads the first line of a caption back, dot by dot, with letters of one pixel a dot.
    pub(in crate::stages) fn read_line(picture: &RgbImage, line: u32) -> String {
        let rows = |column: u32| -> [u8; 8] {
            std::array::from_fn(|row| {
                (0..LETTER).fold(0, |bits, x| {
                    let pixel = picture.get_pixel(column * LETTER + x, line * LINE + 1 + row as u32);
                    bits | u8::from(*pixel == INK) << x
                })
            })
        };
        let letters = (0..picture.width() / LETTER).map(|column| {
            let rows = rows(column);
            (' '..='~').find(|&letter| BASIC_FONTS.get(letter) == Some(rows)).unwrap_or('\u{fffd}')
        });
        letters.collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn a_caption_can_be_read_and_leaves_the_picture_as_it_is() {
        let picture = RgbImage::from_pixel(200, 10, Rgb([9, 9, 9]));
        let lines = ["score 0.1234", "a line that is longer than the picture"].map(str::to_owned);
        let captioned = captioned(&picture, &lines);
        assert_eq!(captioned.width(), 224);
        assert_eq!(read_line(&captioned, 0), "score 0.1234");
        assert_eq!(read_line(&captioned, 1), "a line that is longer than t");
        assert_eq!(read_line(&captioned, 2), "he picture");
        let top = captioned.height() - 10;
        assert!(
            (0..200).all(|x| (0..10).all(|y| captioned.get_pixel(x, top + y) == picture.get_pixel(x, y)))
        );
    }

    #[test]
    fn narrow_and_large_pictures_have_captions_too() {
        for width in [1, 30, 639, 641, 2000] {
            let captioned = captioned(&RgbImage::new(width, 5), &["täst 漢".to_owned()]);
            assert!(captioned.width() >= width.max(LETTERS * LETTER) && captioned.height() > 5, "{width}");
        }
    }

    #[test]
    fn panels_are_placed_with_gaps() {
        let panel = |level| RgbImage::from_pixel(3, 2, Rgb([level; 3]));
        let wide = beside(&[panel(1), panel(2)]);
        assert_eq!(wide.dimensions(), (10, 2));
        assert_eq!((wide.get_pixel(2, 1).0, wide.get_pixel(7, 0).0), ([1; 3], [2; 3]));
        let high = below(&[panel(1), panel(2)]);
        assert_eq!(high.dimensions(), (3, 8));
        assert_eq!((high.get_pixel(0, 1).0, high.get_pixel(0, 6).0), ([1; 3], [2; 3]));
    }
}
