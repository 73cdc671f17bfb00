//! Buffers for replies, used by one client after the other: hardly any client has replies to send at a time, and memory that
//! was just used is at hand, where memory given back to the system costs a page fault for every 4 KiB.

use std::cell::{Cell, RefCell};
use std::fmt;

/// Most bytes that wait to be used again.
const MOST: usize = 1 << 20;
/// Largest buffer of which that is worth while.
const LARGEST: usize = 64 * 1024;
/// Bytes that a new one has room for; smaller ones would only be in the way.
const FIRST: usize = 1024;

/// The buffers that nobody uses just now, the one used last on top.
#[derive(Default)]
pub(super) struct Spares {
    buffers: RefCell<Vec<Vec<u8>>>,
    /// Bytes that they have room for.
    size: Cell<usize>,
}

impl Spares {
    /// Has a buffer stand in for one without room, and gives it.
    #[inline]
    pub(super) fn lend<'a>(&self, buffer: &'a mut Vec<u8>) -> &'a mut Vec<u8> {
        if buffer.capacity() == 0 {
            *buffer = self.take();
        }
        buffer
    }

    /// An empty buffer.
    fn take(&self) -> Vec<u8> {
        let Some(buffer) = self.buffers.borrow_mut().pop() else {
            return Vec::with_capacity(FIRST);
        };
        self.size.set(self.size.get() - buffer.capacity());
        buffer
    }

    /// Takes a buffer back that is not needed any more, and leaves one without room.
    pub(super) fn take_back(&self, buffer: &mut Vec<u8>) {
        self.give(std::mem::take(buffer));
    }

    fn give(&self, mut buffer: Vec<u8>) {
        let size = self.size.get() + buffer.capacity();
        if !(FIRST..=LARGEST).contains(&buffer.capacity()) || size > MOST {
            return;
        }
        buffer.clear();
        self.size.set(size);
        self.buffers.borrow_mut().push(buffer);
    }
}

impl fmt::Debug for Spares {
    /// Without what the buffers are full of, which is nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares").field("size", &self.size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_used_last_is_used_next() {
        let spares = Spares::default();
        let (mut one, other) = (spares.take(), spares.take());
        one.resize(20_000, b'x');
        let at = one.as_ptr();
        spares.give(other);
        spares.give(one);
        let again = spares.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        assert_eq!(spares.take().capacity(), FIRST);
    }

    #[test]
    fn not_much_is_kept() {
        let spares = Spares::default();
        for capacity in [0, 8, FIRST - 1, LARGEST + 1] {
            spares.give(Vec::with_capacity(capacity));
            assert!(spares.buffers.borrow().is_empty(), "{capacity}");
        }
        for _ in 0..100 {
            spares.give(Vec::with_capacity(LARGEST));
        }
        assert_eq!(spares.buffers.borrow().len(), MOST / LARGEST);
        for _ in 0..20 {
            assert!(spares.take().is_empty());
        }
        assert_eq!(spares.size.get(), 0);
    }
}
