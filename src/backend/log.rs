//! The bytes of a lane's requests, from the moment they are queued until their replies have come.
//!
//! ```text
//!   released ─── sent, no reply yet ─── written ─── to be sent ─── queued      (offsets since the connection was made)
//! ```
//! Requests lie one behind the other in segments, so that a request is known by its length and its place in line alone. A
//! segment goes when all of it has been written and answered; the last one is then cleared and used again. Large requests
//! are segments of their own, by reference.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use super::Payload;

/// Capacity of a segment: as much as one write usefully carries.
const SEGMENT: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(super) struct Log {
    segments: VecDeque<Segment>,
    /// Offset of the first byte of the first segment.
    base: u64,
    released: u64,
    written: u64,
    queued: u64,
    /// Where writing goes on: index of the segment, and offset in it.
    cursor: (usize, usize),
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Segment {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Log {
    /// Appends a request.
    #[inline]
    pub(super) fn push(&mut self, payload: Payload<'_>) {
        self.queued += payload.len() as u64;
        if let Payload::Small(bytes) = payload
            && let Some(Segment::Own(own)) = self.segments.back_mut()
            && own.capacity() - own.len() >= bytes.len()
        {
            own.extend_from_slice(bytes);
        } else {
            self.push_segment(payload);
        }
    }

    #[inline(never)]
    fn push_segment(&mut self, payload: Payload<'_>) {
        match payload {
            Payload::Small([]) => {}
            Payload::Small(bytes) => self.open_segment(bytes),
            Payload::Large(bytes) => self.segments.push_back(Segment::Shared(bytes.clone())),
        }
    }

    fn open_segment(&mut self, bytes: &[u8]) {
        let mut own = std::mem::take(&mut self.spare);
        own.reserve(bytes.len().max(SEGMENT));
        own.extend_from_slice(bytes);
        self.segments.push_back(Segment::Own(own));
    }

    /// Offset of the first request without reply.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// Offset behind the last byte handed to the socket.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that have not been written.
    pub(super) fn unwritten(&self) -> u64 {
        self.queued - self.written
    }

    /// Bytes of all requests without reply.
    #[inline]
    pub(super) fn held(&self) -> u64 {
        self.queued - self.released
    }

    /// Fills `room` with up to `most` bytes to be written and says how many slices it used.
    pub(super) fn slices<'a>(&'a self, room: &mut [IoSlice<'a>], mut most: usize) -> usize {
        let (first, offset) = self.cursor;
        let mut used = 0;
        for (at, segment) in self.segments.iter().enumerate().skip(first) {
            let bytes = &segment.bytes()[if at == first { offset } else { 0 }..];
            if used == room.len() || most == 0 {
                break;
            }
            if !bytes.is_empty() {
                room[used] = IoSlice::new(&bytes[..bytes.len().min(most)]);
                most -= room[used].len();
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
            let left = self.segments[index].bytes().len() - offset;
            if taken < left || index + 1 == self.segments.len() {
                self.cursor.1 += taken;
                return;
            }
            taken -= left;
            self.cursor = (index + 1, 0);
        }
    }

    /// The bytes of the request at this offset, to be sent elsewhere.
    pub(super) fn copy(&self, offset: u64, len: u32) -> Bytes {
        let mut base = self.base;
        for segment in &self.segments {
            let end = base + segment.bytes().len() as u64;
            if offset < end {
                let start = index(offset - base);
                let range = start..start + len as usize;
                return match segment {
                    Segment::Own(own) => Bytes::copy_from_slice(&own[range]),
                    Segment::Shared(bytes) => bytes.slice(range),
                };
            }
            base = end;
        }
        Bytes::new()
    }

    /// Whether some of the first request has been handed to the socket.
    #[inline]
    pub(super) fn is_begun(&self) -> bool {
        self.released < self.written
    }

    /// Whether all of the first request, so many bytes long, has been handed to the socket.
    #[inline]
    pub(super) fn is_written(&self, len: u32) -> bool {
        self.released + u64::from(len) <= self.written
    }

    /// The first request has been answered: its bytes are needed no more.
    #[inline]
    pub(super) fn release(&mut self, len: u32) {
        self.released += u64::from(len);
        if self.released == self.queued {
            self.restart();
        } else if self.cursor.0 > 0 {
            self.drop_released();
        }
    }

    fn drop_released(&mut self) {
        while self.cursor.0 > 0 {
            let end = self.base + self.segments[0].bytes().len() as u64;
            if end > self.released {
                return;
            }
            self.base = end;
            self.cursor.0 -= 1;
            if let Some(Segment::Own(own)) = self.segments.pop_front() {
                self.recycle(own);
            }
        }
    }

    /// Everything has been answered: the last segment of the usual size starts anew.
    fn restart(&mut self) {
        self.base = self.queued;
        self.cursor = (0, 0);
        self.segments.truncate(1);
        match self.segments.front_mut() {
            Some(Segment::Own(own)) if own.capacity() <= 2 * SEGMENT => own.clear(),
            _ => self.segments.clear(),
        }
    }

    fn recycle(&mut self, mut own: Vec<u8>) {
        if own.capacity() <= 2 * SEGMENT {
            own.clear();
            self.spare = own;
        }
    }

    /// Takes back the requests from this offset on, none of which has been touched.
    pub(super) fn truncate(&mut self, offset: u64) {
        while let Some(segment) = self.segments.back_mut() {
            let start = self.queued - segment.bytes().len() as u64;
            if offset > start || self.segments.len() == 1 {
                break;
            }
            self.segments.pop_back();
            self.queued = start;
        }
        let kept = index(
            offset - (self.queued - self.segments.back().map_or(0, |s| s.bytes().len() as u64)),
        );
        match self.segments.back_mut() {
            Some(Segment::Own(own)) => own.truncate(kept),
            Some(Segment::Shared(bytes)) => bytes.truncate(kept),
            None => {}
        }
        self.queued = offset;
        if self.cursor.0 >= self.segments.len() {
            self.cursor = (self.segments.len().saturating_sub(1), kept);
        }
    }
}

/// Offsets within a segment fit a `usize`, since the segment does.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_all(log: &mut Log, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while log.unwritten() > 0 {
            let mut room = [IoSlice::new(&[]); 3];
            let used = log.slices(&mut room, usize::MAX);
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
            let payloads: Vec<Vec<u8>> = (1..40u8).map(|i| vec![i; usize::from(i) * 700]).collect();
            for p in &payloads {
                let shared = Bytes::copy_from_slice(p);
                log.push(if p.len() > 20_000 {
                    Payload::Large(&shared)
                } else {
                    Payload::Small(p)
                });
            }
            assert_eq!(write_all(&mut log, most), payloads.concat());
            for payload in &payloads {
                let len = u32::try_from(payload.len()).unwrap();
                assert_eq!(log.copy(log.released(), len), payload);
                assert!(log.is_written(len));
                log.release(len);
            }
            assert!(log.segments.len() <= 1);
            log.push(Payload::Small(b"again"));
            assert_eq!(write_all(&mut log, most), b"again");
            log.release(5);
        }
    }

    #[test]
    fn a_reply_to_what_was_not_written_is_noticed() {
        let mut log = Log::default();
        log.push(Payload::Small(b"request"));
        log.advance(3);
        assert!(!log.is_written(7));
    }

    #[test]
    fn untouched_requests_can_be_taken_back() {
        let mut log = Log::default();
        log.push(Payload::Small(b"first"));
        write_all(&mut log, usize::MAX);
        log.push(Payload::Small(b"second"));
        log.push(Payload::Large(&Bytes::from_static(b"large")));
        log.push(Payload::Small(b"fourth"));
        log.truncate(5);
        assert_eq!(log.unwritten(), 0);
        log.push(Payload::Small(b"fifth"));
        assert_eq!(write_all(&mut log, usize::MAX), b"fifth");
        assert_eq!(log.copy(0, 5), "first");
        log.truncate(10);
        assert_eq!(log.unwritten(), 0);
        for cut in [0, 6] {
            let mut log = Log::default();
            log.push(Payload::Large(&Bytes::from_static(b"large1")));
            log.push(Payload::Large(&Bytes::from_static(b"large2")));
            log.truncate(cut);
            assert_eq!(log.unwritten(), cut);
            log.push(Payload::Small(b"x"));
            assert_eq!(write_all(&mut log, usize::MAX).len() as u64, cut + 1);
        }
    }
}
