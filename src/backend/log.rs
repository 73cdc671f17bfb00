//! The bytes of a lane's requests, from the moment they are queued until their replies have come.
//!
//! Requests lie side by side in segments. A segment goes when all its bytes have been written and all its requests have
//! been answered; the last one is then cleared and used again. Large requests are segments of their own, by reference.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use super::Payload;

/// Capacity of a segment: as much as one write usefully carries.
const SEGMENT: usize = 32 * 1024;

/// Where a request lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Number of its segment; numbers wrap.
    segment: u32,
    start: u32,
    len: u32,
    /// Bytes queued before it and with it, since the connection was made.
    pub(super) end: u64,
}

impl Position {
    /// Bytes queued before it.
    pub(super) fn begin(&self) -> u64 {
        self.end - u64::from(self.len)
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    /// Number of the first segment.
    first: u32,
    segments: VecDeque<Segment>,
    /// Where writing goes on: index of the segment, and offset in it.
    cursor: (usize, usize),
    queued: u64,
    written: u64,
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    bytes: Store,
    /// Requests in it that have not been answered.
    live: u32,
}

#[derive(Debug)]
enum Store {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Store {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Log {
    /// Appends a request.
    pub(super) fn push(&mut self, payload: Payload<'_>) -> Position {
        let len = payload.len();
        self.queued += len as u64;
        let start = match payload {
            Payload::Small(bytes) => self.copy(bytes),
            Payload::Large(bytes) => {
                self.segments.push_back(Segment { bytes: Store::Shared(bytes), live: 0 });
                0
            }
        };
        let last = self.segments.len() - 1;
        self.segments[last].live += 1;
        Position {
            segment: self.first.wrapping_add(narrow(last)),
            start: narrow(start),
            len: narrow(len),
            end: self.queued,
        }
    }

    /// Copies bytes behind the last request, or into a new segment; gives their offset.
    fn copy(&mut self, bytes: &[u8]) -> usize {
        if let Some(Segment { bytes: Store::Own(own), .. }) = self.segments.back_mut() {
            if own.is_empty() || own.len() + bytes.len() <= SEGMENT {
                own.extend_from_slice(bytes);
                return own.len() - bytes.len();
            }
        }
        let mut own = std::mem::take(&mut self.spare);
        own.reserve(bytes.len().max(SEGMENT));
        own.extend_from_slice(bytes);
        self.segments.push_back(Segment { bytes: Store::Own(own), live: 0 });
        0
    }

    /// Bytes that have not been written.
    pub(super) fn unwritten(&self) -> u64 {
        self.queued - self.written
    }

    /// Whether the last byte of a request has been handed to the socket.
    pub(super) fn is_written(&self, at: &Position) -> bool {
        at.end <= self.written
    }

    /// Whether not even the first byte of a request has been handed to the socket.
    pub(super) fn is_untouched(&self, at: &Position) -> bool {
        at.begin() >= self.written
    }

    /// Fills `room` with bytes to be written and says how many slices it used.
    pub(super) fn slices<'a>(&'a self, room: &mut [IoSlice<'a>]) -> usize {
        let (index, offset) = self.cursor;
        let mut used = 0;
        for (at, segment) in self.segments.iter().enumerate().skip(index) {
            let bytes = &segment.bytes.bytes()[if at == index { offset } else { 0 }..];
            if used == room.len() {
                break;
            }
            if !bytes.is_empty() {
                room[used] = IoSlice::new(bytes);
                used += 1;
            }
        }
        used
    }

    /// Takes note that `taken` more bytes were handed to the socket.
    pub(super) fn advance(&mut self, mut taken: usize) {
        self.written += taken as u64;
        while taken > 0 {
            let (index, offset) = self.cursor;
            let left = self.segments[index].bytes.bytes().len() - offset;
            if taken < left || index + 1 == self.segments.len() {
                self.cursor.1 += taken;
                return;
            }
            taken -= left;
            self.cursor = (index + 1, 0);
        }
    }

    /// A request's bytes, to be sent elsewhere.
    pub(super) fn copy_of(&self, at: &Position) -> Bytes {
        let segment = &self.segments[at.segment.wrapping_sub(self.first) as usize];
        let range = at.start as usize..at.start as usize + at.len as usize;
        match &segment.bytes {
            Store::Own(own) => Bytes::copy_from_slice(&own[range]),
            Store::Shared(bytes) => bytes.slice(range),
        }
    }

    /// A request has been answered: its bytes are needed no more. Requests are released in order.
    pub(super) fn release(&mut self, at: &Position) {
        self.segments[at.segment.wrapping_sub(self.first) as usize].live -= 1;
        while self.segments.len() > 1 && self.cursor.0 > 0 && self.segments[0].live == 0 {
            self.drop_front();
        }
        if self.segments.len() == 1 && self.segments[0].live == 0 && self.unwritten() == 0 {
            self.restart();
        }
    }

    fn drop_front(&mut self) {
        if let Some(Segment { bytes: Store::Own(mut own), .. }) = self.segments.pop_front() {
            if own.capacity() <= 2 * SEGMENT {
                own.clear();
                self.spare = own;
            }
        }
        self.first = self.first.wrapping_add(1);
        self.cursor.0 -= 1;
    }

    /// The only segment is done with: it starts anew.
    fn restart(&mut self) {
        match &mut self.segments[0].bytes {
            Store::Own(own) if own.capacity() <= 2 * SEGMENT => {
                own.clear();
                self.cursor = (0, 0);
            }
            _ => {
                self.segments.clear();
                self.first = self.first.wrapping_add(1);
                self.cursor = (0, 0);
            }
        }
    }

    /// Takes back the requests from this one on, none of which has been touched.
    pub(super) fn truncate(&mut self, at: &Position, requests: u32) {
        let index = at.segment.wrapping_sub(self.first) as usize;
        let behind: u32 = self.segments.iter().skip(index + 1).map(|segment| segment.live).sum();
        self.segments.truncate(index + 1);
        let segment = &mut self.segments[index];
        segment.live -= requests - behind;
        match &mut segment.bytes {
            Store::Own(own) => own.truncate(at.start as usize),
            Store::Shared(bytes) => bytes.clear(),
        }
        self.queued = at.begin();
        if self.cursor.0 > index {
            self.cursor = (index, at.start as usize);
        }
    }
}

/// Segments hold less than 4 GiB: they are filled to `SEGMENT`, or hold one request, which the session limits.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_all(log: &mut Log, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while log.unwritten() > 0 {
            let mut room = [IoSlice::new(&[]); 3];
            let used = log.slices(&mut room);
            let bytes: Vec<u8> =
                room[..used].iter().flat_map(|s| s.iter().copied()).take(most).collect();
            out.extend_from_slice(&bytes);
            log.advance(bytes.len());
        }
        out
    }

    #[test]
    fn bytes_come_out_as_they_went_in_and_memory_goes() {
        for most in [1000, 70_000, usize::MAX] {
            let mut log = Log::default();
            let payloads: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; usize::from(i) * 700]).collect();
            let positions: Vec<Position> = payloads
                .iter()
                .map(|p| {
                    log.push(if p.len() > 20_000 {
                        Payload::Large(Bytes::copy_from_slice(p))
                    } else {
                        Payload::Small(p)
                    })
                })
                .collect();
            for (position, payload) in positions.iter().zip(&payloads) {
                assert_eq!(log.copy_of(position), payload);
                assert!(log.is_untouched(position));
            }
            assert_eq!(write_all(&mut log, most), payloads.concat());
            for position in &positions {
                assert!(log.is_written(position));
                log.release(position);
            }
            assert!(log.segments.len() <= 1);
            let position = log.push(Payload::Small(b"again"));
            assert_eq!(write_all(&mut log, most), b"again");
            log.release(&position);
        }
    }

    #[test]
    fn untouched_requests_can_be_taken_back() {
        let mut log = Log::default();
        let first = log.push(Payload::Small(b"first"));
        write_all(&mut log, usize::MAX);
        let second = log.push(Payload::Small(b"second"));
        log.push(Payload::Large(Bytes::from_static(b"large")));
        log.push(Payload::Small(b"fourth"));
        log.truncate(&second, 3);
        assert_eq!(log.unwritten(), 0);
        log.push(Payload::Small(b"fifth"));
        assert_eq!(write_all(&mut log, usize::MAX), b"fifth");
        assert_eq!(log.copy_of(&first), "first");
    }
}
