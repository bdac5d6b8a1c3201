//! Walks through the blocks of a scan: which codes and bits belong to each (ITU-T T.81, annexes F and G).

use super::bits::{Bits, Huffman};
use super::frame::{JpegComponent, JpegFrame, Scan};
use super::{Damage, MARKER};

/// Index of the last coefficient of a block, in zigzag order.
pub(super) const LAST: u32 = 63;

/// The largest coefficient that is read. Those of an 8-bit image are at most 1024 and half a step of quantisation; larger
/// ones come from damaged codes, and decoders disagree about them (chosen: twice the sum of both).
const LARGEST: i64 = 4096;

/// The tables that are valid at a scan, by number.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) dc: [Option<Huffman>; 4],
    pub(super) ac: [Option<Huffman>; 4],
    /// Steps of quantisation, in zigzag order.
    pub(super) steps: [Option<Vec<u16>>; 4],
    /// MCUs between two restart markers; 0 if there are none.
    pub(super) restart_interval: usize,
}

/// Reads all entropy-coded segments of a scan, which start at `position`. Returns the position of the marker after it.
pub(super) fn walk(
    bytes: &[u8],
    position: usize,
    frame: &mut JpegFrame,
    scan: &Scan,
    tables: &Tables,
) -> Result<usize, Damage> {
    let bits = Bits::new(bytes, position);
    let mut walk = Walk { bits, frame, scan, tables, zero_blocks: 0, previous: [0; 4] };
    let (columns, rows) = walk.frame.units(scan);
    let mut restarts = 0;
    for unit in 0..columns * rows {
        if tables.restart_interval > 0 && unit > 0 && unit % tables.restart_interval == 0 {
            walk.restart(bytes, restarts)?;
            restarts = (restarts + 1) % 8;
        }
        walk.unit(unit % columns, unit / columns)?;
    }
    walk.bits.end()
}

struct Walk<'a, 'b> {
    bits: Bits<'a>,
    frame: &'b mut JpegFrame,
    scan: &'b Scan,
    tables: &'b Tables,
    /// Blocks that are left of a run of blocks whose band is zero.
    zero_blocks: u32,
    /// DC of the last block of each component.
    previous: [i64; 4],
}

impl<'a> Walk<'a, '_> {
    /// Passes the restart marker with the given number.
    fn restart(&mut self, bytes: &'a [u8], number: u8) -> Result<(), Damage> {
        let ended = std::mem::replace(&mut self.bits, Bits::new(bytes, bytes.len()));
        let mut position = ended.end()?;
        while bytes.get(position + 1) == Some(&MARKER) {
            position += 1;
        }
        if bytes.get(position + 1) != Some(&(0xd0 + number)) {
            return Err(Damage::Restart);
        }
        self.bits = Bits::new(bytes, position + 2);
        self.zero_blocks = 0;
        self.previous = [0; 4];
        Ok(())
    }

    /// Reads one MCU: one block, or the blocks of every component of the scan.
    fn unit(&mut self, column: usize, row: usize) -> Result<(), Damage> {
        if let [only] = self.scan.components[..] {
            return self.block(only, column, row);
        }
        for &index in &self.scan.components {
            let JpegComponent { across, down, .. } = self.frame.components[index];
            for inner in 0..across * down {
                let (x, y) = (inner % across, inner / across);
                self.block(index, column * across + x, row * down + y)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, component: usize, column: usize, row: usize) -> Result<(), Damage> {
        let (dc, ac) = self.scan.tables[component];
        let dc = self.tables.dc[dc].as_ref().ok_or(Damage::NoTable);
        let ac = self.tables.ac[ac].as_ref().ok_or(Damage::NoTable);
        if !self.frame.is_progressive {
            self.dc(dc?, component)?;
            return self.band(ac?, component, (1, LAST), |_| {});
        }
        let Scan { first, last, is_refinement, .. } = *self.scan;
        match (first, is_refinement) {
            (0, false) => self.dc(dc?, component),
            (0, true) => self.bits.read(1).map(|_| ()),
            (_, false) => self.first_band(ac?, component, self.frame.index(component, column, row)),
            (_, true) => self.refined_band(ac?, (first, last), self.frame.index(component, column, row)),
        }
    }

    fn dc(&mut self, table: &Huffman, component: usize) -> Result<(), Damage> {
        let size = u32::from(self.bits.symbol(table)?);
        // 11 in a baseline file of 8 bits; decoders read up to 15.
        if size > 15 {
            return Err(Damage::Code);
        }
        self.previous[component] += self.value(size)?;
        self.check(component, 0, self.previous[component])
    }

    /// Reads a number of so many bits (T.81, F.2.2.1).
    fn value(&mut self, size: u32) -> Result<i64, Damage> {
        let bits = i64::from(self.bits.read(size)?);
        Ok(if size > 0 && bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits })
    }

    /// Checks that a coefficient is one of an image.
    fn check(&self, component: usize, k: u32, value: i64) -> Result<(), Damage> {
        let steps = self.tables.steps[self.frame.components[component].steps].as_ref();
        let step = steps.and_then(|steps| steps.get(k as usize)).ok_or(Damage::NoTable)?;
        let coefficient = (value << self.scan.low) * i64::from(*step);
        if coefficient.abs() > LARGEST + i64::from(*step) { Err(Damage::Range) } else { Ok(()) }
    }

    /// Reads the coefficients `first..=last` of a block that no scan has begun. `found` receives the index of each that is
    /// not zero.
    fn band(
        &mut self,
        table: &Huffman,
        component: usize,
        (first, last): (u32, u32),
        mut found: impl FnMut(u32),
    ) -> Result<(), Damage> {
        let mut k = first;
        while k <= last {
            let symbol = self.bits.symbol(table)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && run < 15 {
                if self.frame.is_progressive {
                    self.zero_blocks = (1 << run) - 1 + self.bits.read(run)?;
                }
                return Ok(());
            }
            k += run;
            if size > 0 {
                if k > last {
                    return Err(Damage::Block);
                }
                let value = self.value(size)?;
                self.check(component, k, value)?;
                found(k);
            }
            k += 1;
        }
        Ok(())
    }

    fn first_band(&mut self, table: &Huffman, component: usize, index: usize) -> Result<(), Damage> {
        if self.zero_blocks > 0 {
            self.zero_blocks -= 1;
            return Ok(());
        }
        let mut set = 0_u64;
        self.band(table, component, (self.scan.first, self.scan.last), |k| set |= 1 << k)?;
        self.frame.nonzero[index] |= set;
        Ok(())
    }

    /// Reads a scan that adds a bit to each coefficient: of those that are not zero one bit, between the codes of those
    /// that become nonzero (T.81, G.1.2.3).
    fn refined_band(
        &mut self,
        table: &Huffman,
        (first, last): (u32, u32),
        index: usize,
    ) -> Result<(), Damage> {
        let mut set = self.frame.nonzero[index];
        let mut k = first;
        while self.zero_blocks == 0 && k <= last {
            let symbol = self.bits.symbol(table)?;
            let (run, size) = (u32::from(symbol >> 4), symbol & 15);
            match size {
                0 if run < 15 => {
                    self.zero_blocks = (1 << run) + self.bits.read(run)?;
                    break;
                }
                0 => {}
                1 => _ = self.bits.read(1)?,
                _ => return Err(Damage::Code),
            }
            k = self.pass(set, run, (k, last))?;
            if size == 1 {
                if k > last {
                    return Err(Damage::Block);
                }
                set |= 1 << k;
            }
            k += 1;
        }
        if self.zero_blocks > 0 {
            let refined = (k..=last).filter(|k| set & 1 << k != 0).count();
            for _ in 0..refined {
                self.bits.read(1)?;
            }
            self.zero_blocks -= 1;
        }
        self.frame.nonzero[index] = set;
        Ok(())
    }

    /// Passes `run` coefficients that are zero, and reads a bit of each that is not. Returns the index of the next one that
    /// is zero, or `last + 1`.
    fn pass(&mut self, set: u64, mut run: u32, (first, last): (u32, u32)) -> Result<u32, Damage> {
        for k in first..=last {
            if set & 1 << k != 0 {
                self.bits.read(1)?;
            } else if run == 0 {
                return Ok(k);
            } else {
                run -= 1;
            }
        }
        Ok(last + 1)
    }
}
