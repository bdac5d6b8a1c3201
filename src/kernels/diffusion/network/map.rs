//! Feature maps of one patch, and the memory that they are made of.

use crate::kernels::product::panel::PANEL;

/// The feature map of one patch, channels last, with a border of one pixel of zeros: `[side + 2, side + 2, stride]`.
///
/// Channels are padded with zeros to whole panels, so that every convolution computes whole panels.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) side: usize,
    pub(super) channels: usize,
    pub(super) values: Vec<f32>,
}

/// Recycled memory of earlier maps.
#[derive(Debug, Default)]
pub(super) struct Memory(Vec<Vec<f32>>);

impl Memory {
    /// Returns a map of zeros.
    pub(super) fn zeros(&mut self, side: usize, channels: usize) -> Map {
        let mut values = self.0.pop().unwrap_or_default();
        values.clear();
        values.resize((side + 2).pow(2) * channels.next_multiple_of(PANEL), 0.0);
        Map { side, channels, values }
    }

    /// Returns a map to be written: its border and the padding of its channels are zero, the rest is anything.
    pub(super) fn map(&mut self, side: usize, channels: usize) -> Map {
        if !channels.is_multiple_of(PANEL) {
            return self.zeros(side, channels);
        }
        let mut map = Map { side, channels, values: self.0.pop().unwrap_or_default() };
        let (stride, row_len) = (map.stride(), map.row_len());
        map.values.resize((side + 2) * row_len, 0.0);
        map.values[..row_len].fill(0.0);
        map.values[(side + 1) * row_len..].fill(0.0);
        for row in map.values[row_len..(side + 1) * row_len].chunks_exact_mut(row_len) {
            row[..stride].fill(0.0);
            row[row_len - stride..].fill(0.0);
        }
        map
    }

    /// Keeps the memory of maps that are no longer needed.
    pub(super) fn recycle(&mut self, maps: impl IntoIterator<Item = Map>) {
        self.0.extend(maps.into_iter().map(|map| map.values));
    }
}

impl Map {
    /// Returns the number of values from one pixel to the next: the channels and their padding.
    pub(super) fn stride(&self) -> usize {
        self.channels.next_multiple_of(PANEL)
    }

    /// Returns the number of values from one row to the next.
    pub(super) fn row_len(&self) -> usize {
        (self.side + 2) * self.stride()
    }

    /// Returns the index of a pixel, counted without the border.
    pub(super) fn start(&self, row: usize, column: usize) -> usize {
        (row + 1) * self.row_len() + (column + 1) * self.stride()
    }

    /// Returns the pixels of a row without the border.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[self.start(row, 0)..][..self.side * self.stride()]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let (start, len) = (self.start(row, 0), self.side * self.stride());
        &mut self.values[start..][..len]
    }

    /// Returns the pixels of all rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.side).map(|row| self.row(row))
    }

    /// Copies planes `[channels, side, side]` into channels from `first` on.
    pub(super) fn read_planes(&mut self, first: usize, planes: &[f32]) {
        let (side, stride) = (self.side, self.stride());
        for (channel, plane) in planes.chunks_exact(side * side).enumerate() {
            for (row, values) in plane.chunks_exact(side).enumerate() {
                let pixels = self.row_mut(row).chunks_exact_mut(stride);
                for (pixel, &value) in pixels.zip(values) {
                    pixel[first + channel] = value;
                }
            }
        }
    }

    /// Returns the map as planes `[channels, side, side]`.
    pub(super) fn planes(&self) -> Vec<f32> {
        let (side, stride) = (self.side, self.stride());
        let mut planes = vec![0.0; self.channels * side * side];
        for (channel, plane) in planes.chunks_exact_mut(side * side).enumerate() {
            for (row, values) in plane.chunks_exact_mut(side).enumerate() {
                for (pixel, value) in self.row(row).chunks_exact(stride).zip(values) {
                    *value = pixel[channel];
                }
            }
        }
        planes
    }

    /// Adds another map of the same shape.
    pub(super) fn add(&mut self, other: &Self) {
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value += other;
        }
    }

    /// Adds a value to each channel.
    pub(super) fn shift(&mut self, shifts: &[f32]) {
        let stride = self.stride();
        for row in 0..self.side {
            for pixel in self.row_mut(row).chunks_exact_mut(stride) {
                for (value, shift) in pixel.iter_mut().zip(shifts) {
                    *value += shift;
                }
            }
        }
    }

    /// Returns the sum of each channel: of each row, and then of the rows.
    pub(super) fn sums(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.channels];
        for row in self.rows() {
            let mut of_row = vec![0.0; self.channels];
            for pixel in row.chunks_exact(self.stride()) {
                for (sum, value) in of_row.iter_mut().zip(pixel) {
                    *sum += value;
                }
            }
            for (sum, of_row) in sums.iter_mut().zip(of_row) {
                *sum += of_row;
            }
        }
        sums
    }

    /// Copies the map into the channels of `out` from `first` on.
    pub(super) fn copy_into(&self, out: &mut Self, first: usize) {
        let (from, to) = (self.stride(), out.stride());
        for row in 0..self.side {
            let pixels = self.row(row).chunks_exact(from);
            for (pixel, out) in pixels.zip(out.row_mut(row).chunks_exact_mut(to)) {
                out[first..first + self.channels].copy_from_slice(&pixel[..self.channels]);
            }
        }
    }

    /// Copies channels of `from`, from `first` on, into this map.
    pub(super) fn copy_from(&mut self, from: &Self, first: usize) {
        let (to, stride, channels) = (self.stride(), from.stride(), self.channels);
        for row in 0..self.side {
            let pixels = from.row(row).chunks_exact(stride);
            for (pixel, out) in pixels.zip(self.row_mut(row).chunks_exact_mut(to)) {
                out[..channels].copy_from_slice(&pixel[first..first + channels]);
            }
        }
    }

    /// Writes each pixel into four of a map of twice the side.
    pub(super) fn upsample(&self, out: &mut Self) {
        let stride = self.stride();
        for row in 0..out.side {
            let from = self.row(row / 2);
            for (column, pixel) in out.row_mut(row).chunks_exact_mut(stride).enumerate() {
                pixel.copy_from_slice(&from[column / 2 * stride..][..stride]);
            }
        }
    }

    /// Sums the four pixels of a map of twice the side: the gradient of [`Self::upsample`].
    pub(super) fn sum_fours(&mut self, of: &Self) {
        let stride = self.stride();
        for row in 0..self.side {
            let pairs = [of.row(2 * row), of.row(2 * row + 1)];
            for (column, pixel) in self.row_mut(row).chunks_exact_mut(stride).enumerate() {
                let fours = pairs.map(|row| row[2 * column * stride..][..2 * stride].split_at(stride));
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let [top, bottom] = fours.map(|(left, right)| left[channel] + right[channel]);
                    *value = top + bottom;
                }
            }
        }
    }

    /// Writes the pixels to even rows and columns of a map of twice the side, whose others stay 0: what a convolution
    /// of stride 2 is the transpose of.
    pub(super) fn spread(&self, out: &mut Self) {
        let stride = self.stride();
        for row in 0..self.side {
            let pixels = self.row(row).chunks_exact(stride);
            for (pixel, out) in pixels.zip(out.row_mut(2 * row).chunks_exact_mut(2 * stride)) {
                out[..stride].copy_from_slice(pixel);
            }
        }
    }
}
