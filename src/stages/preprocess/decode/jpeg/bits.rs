//! The bits of an entropy-coded segment, and the Huffman codes in them (ITU-T T.81, F.2.2 and annex C).

use super::{Damage, MARKER};

/// Longest code of a Huffman table.
const LONGEST_CODE: usize = 16;
/// Codes up to this length are looked up at once (chosen: 512 entries, nearly every code of a photograph).
const LOOKUP_BITS: u32 = 9;

/// A Huffman table.
pub(super) struct Huffman {
    /// For each prefix of [`LOOKUP_BITS`] bits: length of the code, 0 if it is longer, and its symbol.
    lookup: Vec<(u8, u8)>,
    /// The largest code of each length, -1 if there is none.
    largest: [i32; LONGEST_CODE + 1],
    /// Index of a code's symbol minus the code, by length.
    offset: [i32; LONGEST_CODE + 1],
    symbols: Vec<u8>,
}

impl Huffman {
    /// Creates a table from the number of codes of each length and their symbols. Returns `None` if there are more codes
    /// of a length than fit.
    pub(super) fn new(counts: &[u8; LONGEST_CODE], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            lookup: vec![(0, 0); 1 << LOOKUP_BITS],
            largest: [-1; LONGEST_CODE + 1],
            offset: [0; LONGEST_CODE + 1],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, &count) in (1..).zip(counts) {
            table.offset[length] = index as i32 - code as i32;
            for &symbol in symbols.get(index..index + usize::from(count))? {
                table.add(code, length as u32, symbol);
                code += 1;
            }
            index += usize::from(count);
            if code > 1 << length {
                return None;
            }
            if count > 0 {
                table.largest[length] = code as i32 - 1;
            }
            code <<= 1;
        }
        Some(table)
    }

    fn add(&mut self, code: u32, length: u32, symbol: u8) {
        if length <= LOOKUP_BITS {
            let free = LOOKUP_BITS - length;
            let entries = (code << free) as usize..((code + 1) << free) as usize;
            if let Some(entries) = self.lookup.get_mut(entries) {
                entries.fill((length as u8, symbol));
            }
        }
    }
}

/// Reads the bits of one entropy-coded segment, which ends at a marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to take.
    position: usize,
    /// The bits that were taken but not read, in the low end.
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position, held: 0, count: 0 }
    }

    /// Takes bytes until at least 32 bits are held or the segment ends.
    fn fill(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.bytes.get(self.position) else { return };
            if byte == MARKER {
                // A zero byte was stuffed after a data byte that looks like a marker.
                if self.bytes.get(self.position + 1) != Some(&0) {
                    return;
                }
                self.position += 1;
            }
            self.position += 1;
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// Returns the next bits without reading them, filled up with zeros at the end of the segment.
    fn peek(&self, bits: u32) -> u32 {
        let shown = if self.count >= bits {
            self.held >> (self.count - bits)
        } else {
            self.held << (bits - self.count)
        };
        (shown & ((1 << bits) - 1)) as u32
    }

    fn skip(&mut self, bits: u32) -> Result<(), Damage> {
        self.count = self.count.checked_sub(bits).ok_or(Damage::Short)?;
        Ok(())
    }

    /// Reads up to 16 bits.
    pub(super) fn read(&mut self, bits: u32) -> Result<u32, Damage> {
        if self.count < bits {
            self.fill();
        }
        let value = self.peek(bits);
        self.skip(bits)?;
        Ok(value)
    }

    /// Reads a code and returns its symbol.
    pub(super) fn symbol(&mut self, table: &Huffman) -> Result<u8, Damage> {
        if self.count < LONGEST_CODE as u32 {
            self.fill();
        }
        let (length, symbol) = table.lookup[self.peek(LOOKUP_BITS) as usize];
        if length > 0 {
            self.skip(u32::from(length))?;
            return Ok(symbol);
        }
        for length in LOOKUP_BITS as usize + 1..=LONGEST_CODE {
            let code = self.peek(length as u32) as i32;
            if code <= table.largest[length] {
                self.skip(length as u32)?;
                let index = (code + table.offset[length]) as usize;
                return table.symbols.get(index).copied().ok_or(Damage::Code);
            }
        }
        // Zeros that stand for missing bits are no invalid code.
        Err(if self.count < LONGEST_CODE as u32 { Damage::Short } else { Damage::Code })
    }

    /// Ends the segment. Returns the position of the marker that follows.
    ///
    /// # Errors
    /// [`Damage::Long`] if data are left that no block has read.
    pub(super) fn end(mut self) -> Result<usize, Damage> {
        self.fill();
        if self.count >= 8 {
            return Err(Damage::Long);
        }
        if self.position >= self.bytes.len() { Err(Damage::NoEnd) } else { Ok(self.position) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two codes of 2 bits (00, 01), one of 3 (100), one of 10.
    fn table() -> Huffman {
        let mut counts = [0; 16];
        (counts[1], counts[2], counts[9]) = (2, 1, 1);
        Huffman::new(&counts, &[7, 8, 9, 10]).unwrap()
    }

    #[test]
    fn codes_of_every_length_are_read() {
        let mut bits = Bits::new(&[0b0001_1001, 0b0100_0000, 0b0000_0000], 0);
        let table = table();
        let read: Vec<u8> = (0..4).map(|_| bits.symbol(&table).unwrap()).collect();
        assert_eq!(read, [7, 8, 9, 10]);
        let mut long = Bits::new(&[0b1010_0000, 0b0000_0000, 0xff, 0], 0);
        assert_eq!(long.symbol(&table), Ok(10));
        assert_eq!(long.read(6), Ok(0));
        assert_eq!(long.read(8), Ok(255), "the stuffed zero is no data");
        assert_eq!(long.read(1), Err(Damage::Short));
    }

    #[test]
    fn unknown_codes_and_rests_are_damage() {
        assert_eq!(Bits::new(&[0xf0, 0, 0], 0).symbol(&table()), Err(Damage::Code));
        assert_eq!(Bits::new(&[0xf0], 0).symbol(&table()), Err(Damage::Short));
        let rest = |bytes: &[u8]| {
            let mut bits = Bits::new(bytes, 0);
            bits.symbol(&table()).and_then(|_| bits.end())
        };
        assert_eq!(rest(&[0, 0xff, 0xd9]), Ok(1));
        assert_eq!(rest(&[0, 0, 0xff, 0xd9]), Err(Damage::Long));
        assert_eq!(rest(&[0]), Err(Damage::NoEnd));
    }

    #[test]
    fn more_codes_than_fit_are_refused() {
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_none());
        counts[0] = 2;
        assert!(Huffman::new(&counts, &[1]).is_none(), "a symbol is missing");
    }
}
