//! The headers of a message: what it is, and whose records it has.

use super::produce::Header;
use crate::record::Writer;
use crate::sink::broker::flight::Mark;
use std::fmt::Write as _;

/// The most headers that a message has.
const MOST: usize = 4;

/// Makes headers. The texts are kept from one message to the next: most have the same writer.
#[derive(Debug, Default)]
pub(super) struct Marked {
    of: Option<Writer>,
    writer: String,
    seqs: String,
}

/// A message's headers.
pub(super) struct Headers<'a> {
    headers: [Header<'a>; MOST],
    count: usize,
}

impl<'a> Headers<'a> {
    pub(super) fn as_slice(&self) -> &[Header<'a>] {
        &self.headers[..self.count]
    }
}

impl<'a> Extend<Header<'a>> for Headers<'a> {
    /// More than there is room for are left out.
    fn extend<T: IntoIterator<Item = Header<'a>>>(&mut self, more: T) {
        for (place, header) in self.headers[self.count..].iter_mut().zip(more) {
            *place = header;
            self.count += 1;
        }
    }
}

impl Marked {
    /// They say whose records a message has when all are of one writer; the lines themselves always do.
    pub(super) fn headers<'a>(&'a mut self, content_type: &'a [u8], marks: &[Mark]) -> Headers<'a> {
        let mut headers = Headers { headers: [Header { name: c"content-type", value: content_type }; MOST], count: 1 };
        let (Some(first), Some(last)) = (marks.first(), marks.last()) else { return headers };
        if !marks.iter().all(|mark| mark.writer == first.writer) {
            return headers;
        }
        if self.of != Some(first.writer) {
            self.of = Some(first.writer);
            self.writer = first.writer.to_string();
        }
        self.seqs.clear();
        self.seqs.push_str(itoa::Buffer::new().format(first.first_seq));
        if first.first_seq != last.last_seq {
            // Writing to a text does not fail.
            let _ = write!(self.seqs, "-{}", last.last_seq);
        }
        let (writer, seqs) = (self.writer.as_bytes(), self.seqs.as_bytes());
        headers.extend([Header { name: c"predlog-writer", value: writer }, Header { name: c"predlog-seq", value: seqs }]);
        headers
    }
}
