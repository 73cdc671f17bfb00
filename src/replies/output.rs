//! Bytes on their way to a client: small replies side by side in one buffer, large ones by reference between them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use super::Spares;

/// Written bytes are cut off a tail that never runs empty once there are so many of them.
const COMPACT_AT: usize = 64 * 1024;

/// An ordered queue of bytes to be written.
#[derive(Debug, Default)]
pub struct Output {
    /// Finished pieces, in front of the tail.
    pieces: VecDeque<Bytes>,
    /// Bytes of the pieces.
    pieces_len: usize,
    tail: Vec<u8>,
    /// How much of the tail has been written.
    written: usize,
}

impl Output {
    /// The buffer that small replies are appended to.
    #[inline]
    pub(super) fn tail(&mut self, spares: &Spares) -> &mut Vec<u8> {
        spares.lend(&mut self.tail)
    }

    /// Appends a large reply by reference.
    pub fn append(&mut self, bytes: Bytes) {
        if self.tail.len() > self.written {
            let small = Bytes::from(std::mem::take(&mut self.tail)).slice(self.written..);
            self.pieces_len += small.len();
            self.pieces.push_back(small);
        }
        self.tail.clear();
        self.written = 0;
        self.pieces_len += bytes.len();
        self.pieces.push_back(bytes);
    }

    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.pieces_len + self.tail.len() - self.written
    }

    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `room` with up to `most` unwritten bytes and says how many slices it used.
    pub fn slices<'a>(&'a self, room: &mut [IoSlice<'a>], mut most: usize) -> usize {
        let tail = &self.tail[self.written..];
        let pieces = self
            .pieces
            .iter()
            .map(Bytes::as_ref)
            .chain(std::iter::once(tail).filter(|tail| !tail.is_empty()));
        let mut used = 0;
        for (slice, piece) in room.iter_mut().zip(pieces) {
            if most == 0 {
                break;
            }
            *slice = IoSlice::new(&piece[..piece.len().min(most)]);
            most -= slice.len();
            used += 1;
        }
        used
    }

    /// Takes note that the first `taken` bytes have been written.
    pub fn advance(&mut self, mut taken: usize) {
        while let Some(front) = self.pieces.front_mut() {
            if taken < front.len() {
                bytes::Buf::advance(front, taken);
                self.pieces_len -= taken;
                return;
            }
            taken -= front.len();
            self.pieces_len -= front.len();
            self.pieces.pop_front();
        }
        self.written += taken;
        if self.written == self.tail.len() {
            self.written = 0;
            self.tail.clear();
        } else if self.written > COMPACT_AT && self.written * 2 > self.tail.len() {
            self.tail.drain(..self.written);
            self.written = 0;
        }
    }

    /// Gives back memory when nothing is left to write.
    pub(super) fn shrink(&mut self, spares: &Spares) {
        if self.is_empty() {
            spares.take_back(&mut self.tail);
        }
    }
}
