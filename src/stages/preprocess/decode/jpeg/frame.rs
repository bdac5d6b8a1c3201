//! Headers of a JPEG file: the frame with its components, and the scans.

use super::scan::LAST;
use super::{bad_header, damaged};
use crate::stages::preprocess::decode::ImageFault;
use crate::stages::preprocess::decode::fault::check_size;

/// The largest number of a lowest bit (T.81, G.1.1.1.1).
const LOWEST: u32 = 13;

/// Side of a block in samples.
const BLOCK: usize = 8;

/// A colour component.
pub(super) struct JpegComponent {
    id: u8,
    /// Blocks of an MCU from left to right (the horizontal sampling factor).
    pub(super) across: usize,
    /// Blocks of an MCU from top to bottom.
    pub(super) down: usize,
    /// Blocks that hold samples of the image.
    columns: usize,
    rows: usize,
    /// Blocks in a row of MCUs.
    stride: usize,
    /// Index of the first block in [`JpegFrame::nonzero`].
    start: usize,
    /// Number of its table of quantisation steps.
    pub(super) steps: usize,
    /// The lowest bit of each coefficient that the scans have sent so far.
    sent: [Option<u32>; 64],
}

/// The image.
pub(super) struct JpegFrame {
    /// Height and width in px.
    pub(super) size: (usize, usize),
    pub(super) is_progressive: bool,
    pub(super) components: Vec<JpegComponent>,
    /// MCUs of a scan of all components.
    mcus: (usize, usize),
    /// Of each block of a progressive file, a bit for each coefficient that is not zero.
    pub(super) nonzero: Vec<u64>,
}

/// A scan: some components, and the coefficients that it holds.
pub(super) struct Scan {
    /// Indices of the components.
    pub(super) components: Vec<usize>,
    /// Numbers of the tables for DC and AC, by component of the frame.
    pub(super) tables: [(usize, usize); 4],
    pub(super) first: u32,
    pub(super) last: u32,
    /// The lowest bit that it sends.
    pub(super) low: u32,
    /// Whether it adds a bit to coefficients that an earlier scan began.
    pub(super) is_refinement: bool,
}

impl JpegFrame {
    /// Reads a start of frame, without its marker and length. `marker` stands for the kind of coding.
    pub(super) fn read(marker: u8, header: &[u8]) -> Result<Self, ImageFault> {
        let is_progressive = match marker {
            0xc0 | 0xc1 => false,
            0xc2 => true,
            0xc3 => return Err(ImageFault::unread("a lossless JPEG")),
            0xc9..=0xcb => return Err(ImageFault::unread("a JPEG with arithmetic coding")),
            _ => return Err(ImageFault::unread("a hierarchical JPEG")),
        };
        let [bits, y1, y0, x1, x0, count, rest @ ..] = header else { return Err(bad_header()) };
        if *bits != 8 {
            return Err(ImageFault::unread(format!("a JPEG with {bits} bits per level")));
        }
        let (height, width) =
            (usize::from(u16::from_be_bytes([*y1, *y0])), usize::from(u16::from_be_bytes([*x1, *x0])));
        if height == 0 {
            return Err(ImageFault::unread("a JPEG without its height in the header"));
        }
        match count {
            1 | 3 => {}
            4 => return Err(ImageFault::unread("a CMYK or YCCK JPEG (four colour components, for print)")),
            _ => return Err(ImageFault::unread(format!("a JPEG with {count} colour components"))),
        }
        let (triples, []) = rest.as_chunks::<3>() else { return Err(bad_header()) };
        if triples.len() != usize::from(*count) || width == 0 {
            return Err(bad_header());
        }
        check_size(height as u64, width as u64, triples.len() as u64, "a JPEG")?;
        Self::new(is_progressive, (height, width), triples)
    }

    fn new(
        is_progressive: bool,
        (height, width): (usize, usize),
        triples: &[[u8; 3]],
    ) -> Result<Self, ImageFault> {
        let factors =
            triples.iter().map(|&[_, factors, _]| (usize::from(factors >> 4), usize::from(factors & 15)));
        if triples.iter().any(|&[.., steps]| steps > 3) {
            return Err(bad_header());
        }
        if !factors.clone().all(|(across, down)| (1..=4).contains(&across) && (1..=4).contains(&down)) {
            return Err(bad_header());
        }
        let most_across = factors.clone().map(|(across, _)| across).max().unwrap_or(1);
        let most_down = factors.map(|(_, down)| down).max().unwrap_or(1);
        let mcus = (width.div_ceil(BLOCK * most_across), height.div_ceil(BLOCK * most_down));
        let mut blocks = 0;
        let components = triples.iter().map(|&[id, factors, steps]| {
            let (across, down) = (usize::from(factors >> 4), usize::from(factors & 15));
            let start = blocks;
            let stride = mcus.0 * across;
            blocks += stride * mcus.1 * down;
            let columns = (width * across).div_ceil(most_across).div_ceil(BLOCK);
            let rows = (height * down).div_ceil(most_down).div_ceil(BLOCK);
            JpegComponent {
                id,
                across,
                down,
                columns,
                rows,
                stride,
                start,
                steps: usize::from(steps),
                sent: [None; 64],
            }
        });
        let components = components.collect();
        Ok(Self {
            size: (height, width),
            is_progressive,
            components,
            mcus,
            nonzero: vec![0; if is_progressive { blocks } else { 0 }],
        })
    }

    /// Returns the number of MCUs of a scan, per row and in a column.
    pub(super) fn units(&self, scan: &Scan) -> (usize, usize) {
        match scan.components[..] {
            [only] => (self.components[only].columns, self.components[only].rows),
            _ => self.mcus,
        }
    }

    /// Returns the index of a block in `nonzero`.
    pub(super) fn index(&self, component: usize, column: usize, row: usize) -> usize {
        let component = &self.components[component];
        component.start + row * component.stride + column
    }

    /// Reads a start of scan, without its marker and length.
    pub(super) fn scan(&self, header: &[u8]) -> Result<Scan, ImageFault> {
        let [count, rest @ ..] = header else { return Err(bad_header()) };
        let (pairs, last) = rest.as_chunks::<2>();
        let (pairs, [[first, end]], [bits]) = (
            pairs.get(..usize::from(*count)).ok_or_else(bad_header)?,
            pairs.get(usize::from(*count)..).ok_or_else(bad_header)?,
            last,
        ) else {
            return Err(bad_header());
        };
        let (high, low) = (u32::from(bits >> 4), u32::from(bits & 15));
        // A sequential scan holds all coefficients whole; what its header says of them has no meaning.
        let mut scan = Scan {
            components: Vec::new(),
            tables: [(0, 0); 4],
            first: 0,
            last: LAST,
            low: 0,
            is_refinement: false,
        };
        if self.is_progressive {
            let (first, last) = (u32::from(*first), u32::from(*end));
            let is_dc = first == 0 && last == 0;
            let is_band = 0 < first && first <= last && last <= LAST && pairs.len() == 1;
            if !is_dc && !is_band || low > LOWEST || high > 0 && high != low + 1 {
                return Err(bad_header());
            }
            scan = Scan { first, last, low, is_refinement: high > 0, ..scan };
        }
        for &[id, tables] in pairs {
            let index = self.components.iter().position(|component| component.id == id);
            let index = index.filter(|index| !scan.components.contains(index)).ok_or_else(bad_header)?;
            let tables = (usize::from(tables >> 4), usize::from(tables & 15));
            if tables.0 > 3 || tables.1 > 3 {
                return Err(bad_header());
            }
            scan.components.push(index);
            scan.tables[index] = tables;
        }
        if scan.components.is_empty() { Err(bad_header()) } else { Ok(scan) }
    }

    /// Notes what a scan sends. Fails if it is not the next bit of each coefficient.
    pub(super) fn begin(&mut self, scan: &Scan) -> Result<(), ImageFault> {
        let before = scan.is_refinement.then_some(scan.low + 1);
        for &index in &scan.components {
            for sent in &mut self.components[index].sent[scan.first as usize..=scan.last as usize] {
                if *sent != before {
                    return Err(damaged("a scan is missing or repeated"));
                }
                *sent = Some(scan.low);
            }
        }
        Ok(())
    }

    /// Returns whether the scans have sent every bit of every coefficient.
    pub(super) fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.sent == [Some(0); 64])
    }

    /// Returns whether the components are named after red, green and blue.
    pub(super) fn is_named_rgb(&self) -> bool {
        self.components.iter().map(|component| component.id).eq(*b"RGB")
    }
}
