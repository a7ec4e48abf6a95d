//! The log's files, byte by byte: with this page alone a stranger can write a reader. All integers are little-endian; CRC is CRC-32C (Castagnoli).
//!
//! # The directory
//!
//! | name | what |
//! | --- | --- |
//! | `format` | text: the lines `choir log`, `format <version>`, `log_id <uuid>`, `crc32c <8 hex digits, over the lines before>`, each ended by `\n` |
//! | `lock` | locked exclusively by the process that holds the log; empty |
//! | `segments/0000000001.log`, `…2.log`, … | the log: numbered without gaps, ten digits; **the only truth** |
//! | `index/`, `index.rebuild`, `states/` | derived: may be deleted whenever no process holds the log. `index.rebuild` says that the index isn't to be trusted, and up to which batch it had come |
//!
//! # A segment
//!
//! A header of 48 bytes, then frames back to back until the end of the file. A segment ends where a frame ends; a frame never crosses segments.
//!
//! ```text
//!  0  8  magic FF 43 48 4F 49 52 53 FE
//!  8  4  version of the format: 1
//! 12  4  number of the segment, as in its name
//! 16  8  number of the first batch in it
//! 24  4  CRC of the frame before that one (0 where there is none)
//! 28 16  zero
//! 44  4  CRC over bytes 0 to 44
//! ```
//!
//! # A frame
//!
//! One batch: what was made durable by one fsync. Batches are numbered 1, 2, 3 … through all segments. A header of 32 bytes, then its items.
//!
//! ```text
//!  0  4  magic FF 43 46 FE  (FF and FE stand in no UTF-8: no body, title or name can hold a frame)
//!  4  4  length of the whole frame in bytes
//!  8  8  number of the batch
//! 16  4  CRC of the frame before (0 where there is none): the field at 28 of that frame
//! 20  4  number of items, at least 1
//! 24  4  zero
//! 28  4  CRC over bytes 0 to 28, then over the 20-byte header of each item, in order
//! ```
//!
//! # An item
//!
//! A header of 20 bytes, then its head, which never changes, then its body, which a redaction overwrites in place.
//!
//! ```text
//!  0  1  type: 1 record, 2 facts, 3 put, 4 seal
//!  1  3  zero
//!  4  4  length of the head
//!  8  4  length of the body (0 but for records)
//! 12  4  CRC over the body as it was appended
//! 16  4  CRC over bytes 0 to 16 of this header, then over the head
//! ```
//!
//! The frame's CRC covers the items' headers, these the CRCs of heads and bodies: everything is covered, and yet a body can be overwritten.
//!
//! An append is its records in order, then its facts. A **seal** has neither head nor body; an orderly end writes a frame of one, so that damage to the last
//! frame with content isn't taken for a torn write.
//!
//! ## The head of a record, and its body
//!
//! ```text
//!   0 16  thread id                            then, in this order, what there is:
//!  16  8  seq                                    the author, UTF-8
//!  24 16  id                                     the nodes, 32 bytes each, leaf first
//!  40  8  timestamp                              kind 255: the kind's text
//!  48  8  messages                               bit 0, proof: sent_at (8), sig (64)
//!  56 32  content_hash                           bit 1, proof.seen: seq (8), root (32)
//!  88 32  root                                   bit 2, proof.key (32)
//! 120  1  kind: 1 to 13 in the order of L1       bit 3, proof.audience: text
//!         (message_posted is 2), 255 another     bit 4, proof.id (16)
//! 121  1  bits: which of the optional parts      bit 5, proof.type: text
//!         there are                              bit 6, about: id (16)
//! 122  1  number of nodes                        bit 7, author of the spec: text
//! 123  1  length of the author in bytes
//! ```
//!
//! A text is its length in bytes (4) and its UTF-8. The body is the canonical JSON. A body that consists of zero bytes, or of none, is **erased**: by the
//! redaction that later facts of the thread name, or facts of the same frame. A body that is neither zero nor fits its CRC is either half erased by a crash
//! (facts further on erase it: zero it) or damaged.
//!
//! ## The head of facts
//!
//! ```text
//! thread id (16); number of the append's last entry (8)
//! number of erasures (4), each: seq erased (8), seq of the redaction (8)
//! number of members' rows (4), each: user (text), role (1: 0 no longer a member, 1 reader, 2 co-author, 3 owner), joined (1: 0 or 1)
//! title (text); visibility (1: 0 private, 1 public); messages (8); last_activity (8); due: 0, or 1 and a time (1, 8)
//! awaiting: 0 as in the thread's facts before, or 1 and (1): number of rows (4), each: user (text), count (4)
//! ```
//!
//! ## The head of a put
//!
//! ```text
//! length of the key (4), key, value (the rest)
//! ```
//!
//! # What is valid, and how a reader recovers
//!
//! A frame is **good** where its magic, its CRC and the CRCs of all heads hold, and its items fill its length. It is **whole** where each body fits its CRC as
//! well, or is erased. Frames are read in order; each must be good, bear the next batch number and the CRC of the frame before; the header of the next segment
//! repeats both. Where that fails,
//! - it is a **torn tail**, the trace of a crash in the middle of a write that was never acknowledged, where it is in the last segment and no good frame with a
//!   later batch number follows, at any offset: the file is cut there. So is a last frame that isn't whole, and a last segment whose header isn't valid and
//!   that holds no good frame: it is removed.
//! - it is **corruption** in every other case, and where the index knows that this frame was good: nothing is touched.

use choir_core::record::{Facts, MemberFact, Record, Summary};
use choir_protocol::entry::{Body, Kind, Proof};
use choir_protocol::hash::Hash;
use choir_protocol::ids::{Cursor, Id, Seq, ThreadId, Timestamp, UserId};
use choir_protocol::key::{PublicKey, Signature};
use choir_protocol::thread::{Role, Visibility};

/// The version of the format that is written here, and the newest that is read.
pub(crate) const VERSION: u32 = 1;

/// Bytes before a segment's first frame.
pub(crate) const SEGMENT_HEADER: usize = 48;
/// Bytes before a frame's first item.
pub(crate) const FRAME_HEADER: usize = 32;
/// Bytes before an item's head.
pub(crate) const ITEM_HEADER: usize = 20;

const SEGMENT_MAGIC: [u8; 8] = [0xff, b'C', b'H', b'O', b'I', b'R', b'S', 0xfe];
pub(crate) const FRAME_MAGIC: [u8; 4] = [0xff, b'C', b'F', 0xfe];

const RECORD: u8 = 1;
const FACTS: u8 = 2;
const PUT: u8 = 3;
const SEAL: u8 = 4;

const OTHER_KIND: u8 = 255;

/// What doesn't hold in bytes that should be part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u32,
    pub(crate) first_batch: u64,
    pub(crate) previous_crc: u32,
}

impl SegmentHeader {
    pub(crate) fn to_bytes(self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        let mut at = 0;
        for part in [
            &SEGMENT_MAGIC[..],
            &VERSION.to_le_bytes(),
            &self.number.to_le_bytes(),
            &self.first_batch.to_le_bytes(),
            &self.previous_crc.to_le_bytes(),
        ] {
            put_at(&mut bytes, at, part);
            at += part.len();
        }
        let crc = crc32c::crc32c(slice(&bytes, 0, 44));
        put_at(&mut bytes, 44, &crc.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let header = (|| {
            let magic = fields.array::<8>()?;
            let version = fields.u32()?;
            let header = Self {
                number: fields.u32()?,
                first_batch: fields.u64()?,
                previous_crc: fields.u32()?,
            };
            let zero = fields.array::<16>()?;
            let crc = fields.u32()?;
            let holds = magic == SEGMENT_MAGIC
                && version == VERSION
                && zero == [0; 16]
                && crc == crc32c::crc32c(slice(bytes, 0, 44));
            holds.then_some(header)
        })();
        header.ok_or(Malformed("the segment's header does not hold"))
    }
}

/// The first bytes of a frame, whose CRC is only checked with the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    pub(crate) batch: u64,
    pub(crate) previous_crc: u32,
    pub(crate) count: u32,
    pub(crate) crc: u32,
}

impl FrameHeader {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let header = (|| {
            let magic = fields.array::<4>()?;
            let (length, batch, previous_crc, count) = (fields.u32()?, fields.u64()?, fields.u32()?, fields.u32()?);
            let (zero, crc) = (fields.u32()?, fields.u32()?);
            let possible = count > 0 && length as usize >= FRAME_HEADER + ITEM_HEADER && zero == 0;
            (magic == FRAME_MAGIC && possible).then_some(Self {
                length,
                batch,
                previous_crc,
                count,
                crc,
            })
        })();
        header.ok_or(Malformed("no frame begins here"))
    }
}

/// Where a record stands, counted from the beginning of its frame or of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Of the item's header.
    pub(crate) offset: u32,
    pub(crate) head_bytes: u32,
    pub(crate) body_bytes: u32,
}

impl Extent {
    /// The item with its header.
    pub(crate) const fn bytes(self) -> usize {
        ITEM_HEADER + self.head_bytes as usize + self.body_bytes as usize
    }

    /// Where the body begins.
    pub(crate) const fn body_offset(self) -> u64 {
        self.offset as u64 + ITEM_HEADER as u64 + self.head_bytes as u64
    }

    /// The first byte after the item.
    pub(crate) const fn end(self) -> u64 {
        self.offset as u64 + self.bytes() as u64
    }

    /// As counted from where `base` is 0.
    pub(crate) fn from(self, base: u32) -> Option<Self> {
        Some(Self {
            offset: self.offset.checked_add(base)?,
            ..self
        })
    }
}

/// The changes of an append to what lists say, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredFacts {
    pub(crate) thread: ThreadId,
    pub(crate) last: Seq,
    pub(crate) erase: Vec<(Seq, Seq)>,
    pub(crate) members: Vec<(UserId, Option<MemberFact>)>,
    /// Without `awaiting` where `awaiting_as_before`.
    pub(crate) summary: Summary,
    pub(crate) awaiting_as_before: bool,
}

/// One item of a frame, as it stands there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawItem<'a> {
    kind: u8,
    pub(crate) extent: Extent,
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
    body_crc: u32,
}

/// What an item says.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// Its body is [`Body::Erased`] by 0: whoever needs it reads it from the raw item.
    Record(ThreadId, Box<Record>),
    Facts(Box<StoredFacts>),
    Put(&'a [u8], &'a [u8]),
    Seal,
}

impl<'a> RawItem<'a> {
    /// Reads an item that begins at `offset` of `bytes`, and checks its header and head. The extent counts from the beginning of `bytes`.
    pub(crate) fn parse(bytes: &'a [u8], offset: usize) -> Result<Self, Malformed> {
        let (item, rest) = Self::parse_head(bytes, offset)?;
        let body = rest
            .get(..item.extent.body_bytes as usize)
            .ok_or(Malformed("an item's body is cut off"))?;
        Ok(Self { body, ..item })
    }

    /// The same without the body, whose bytes may be missing. Also what follows on the head.
    pub(crate) fn parse_head(bytes: &'a [u8], offset: usize) -> Result<(Self, &'a [u8]), Malformed> {
        let header = bytes
            .get(offset..)
            .and_then(|rest| rest.get(..ITEM_HEADER))
            .ok_or(Malformed("an item is cut off"))?;
        let mut fields = Fields(header);
        let (kind, zero) = (fields.u8().unwrap_or_default(), fields.array::<3>().unwrap_or_default());
        let mut number = || fields.u32().unwrap_or_default();
        let (head_bytes, body_bytes, body_crc, head_crc) = (number(), number(), number(), number());
        let extent = Extent {
            offset: u32::try_from(offset).map_err(|_| Malformed("an item lies too far"))?,
            head_bytes,
            body_bytes,
        };
        let rest = bytes.get(offset + ITEM_HEADER..).unwrap_or_default();
        let (head, rest) = rest
            .split_at_checked(head_bytes as usize)
            .ok_or(Malformed("an item's head is cut off"))?;
        if zero != [0; 3] || crc32c::crc32c_append(crc32c::crc32c(slice(header, 0, 16)), head) != head_crc {
            return Err(Malformed("the CRC of an item's head does not hold"));
        }
        Ok((
            Self {
                kind,
                extent,
                head,
                body: &[],
                body_crc,
            },
            rest,
        ))
    }

    pub(crate) fn decode(&self) -> Result<Item<'a>, Malformed> {
        let item = match self.kind {
            RECORD => decode_record(self.head).map(|(thread, record)| Item::Record(thread, Box::new(record))),
            FACTS => decode_facts(self.head).map(|facts| Item::Facts(Box::new(facts))),
            PUT => decode_put(self.head).map(|(key, value)| Item::Put(key, value)),
            SEAL => self.head.is_empty().then_some(Item::Seal),
            _ => None,
        };
        item.ok_or(Malformed("an item whose CRC holds can't be understood"))
    }

    /// Whether the body is the one that was appended.
    pub(crate) fn body_holds(&self) -> bool {
        crc32c::crc32c(self.body) == self.body_crc
    }

    /// Whether the body has been overwritten.
    pub(crate) fn body_is_zero(&self) -> bool {
        self.body.iter().all(|byte| *byte == 0)
    }
}

/// A good frame.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) items: Vec<RawItem<'a>>,
}

impl<'a> Frame<'a> {
    /// Reads the frame that `bytes` begins with, and checks all but bodies. Extents count from the beginning of the frame.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = FrameHeader::parse(bytes)?;
        let bytes = bytes
            .get(..header.length as usize)
            .ok_or(Malformed("a frame is cut off"))?;
        let mut crc = crc32c::crc32c(slice(bytes, 0, 28));
        let mut at = FRAME_HEADER;
        let mut items = Vec::new();
        for _ in 0..header.count {
            let item = RawItem::parse(bytes, at)?;
            crc = crc32c::crc32c_append(crc, slice(bytes, at, at + ITEM_HEADER));
            at += item.extent.bytes();
            items.push(item);
        }
        if at != bytes.len() || crc != header.crc {
            return Err(Malformed("the CRC of a frame does not hold"));
        }
        Ok(Self { header, items })
    }
}

/// Builds a frame in a buffer.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
    items: Vec<u32>,
}

impl FrameBuilder {
    /// An empty frame, in a buffer that was used before.
    pub(crate) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(FRAME_HEADER, 0);
        Self {
            bytes: buffer,
            items: Vec::new(),
        }
    }

    /// A place to go back to.
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.items.len())
    }

    /// Takes back what was added since the mark.
    pub(crate) fn back_to(&mut self, (bytes, items): (usize, usize)) {
        self.bytes.truncate(bytes);
        self.items.truncate(items);
    }

    /// Adds a record. None where the frame would become longer than its length field can say; then it must be taken back.
    pub(crate) fn record(&mut self, thread: ThreadId, record: &Record) -> Option<Extent> {
        self.item(RECORD, record.body.text().unwrap_or_default().as_bytes(), |out| {
            encode_record(out, thread, record)
        })
    }

    /// Adds an append's facts, behind its records.
    pub(crate) fn facts(
        &mut self,
        thread: ThreadId,
        last: Seq,
        facts: &Facts,
        awaiting_as_before: bool,
    ) -> Option<Extent> {
        self.item(FACTS, &[], |out| {
            encode_facts(out, thread, last, facts, awaiting_as_before)
        })
    }

    /// Adds a record beside the threads.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Option<Extent> {
        self.item(PUT, &[], |out| {
            out.extend_from_slice(&count(key.len()).to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        })
    }

    /// Adds the mark of an orderly end.
    pub(crate) fn seal(&mut self) -> Option<Extent> {
        self.item(SEAL, &[], |_| {})
    }

    /// Erases the body of a record that was added: it is never written.
    pub(crate) fn erase(&mut self, extent: Extent) {
        let body = usize::try_from(extent.body_offset()).unwrap_or(usize::MAX);
        if let Some(body) = self
            .bytes
            .get_mut(body..)
            .and_then(|rest| rest.get_mut(..extent.body_bytes as usize))
        {
            body.fill(0);
        }
    }

    fn item(&mut self, kind: u8, body: &[u8], write_head: impl FnOnce(&mut Vec<u8>)) -> Option<Extent> {
        let at = self.bytes.len();
        self.bytes.resize(at + ITEM_HEADER, 0);
        write_head(&mut self.bytes);
        let head_bytes = u32::try_from(self.bytes.len() - at - ITEM_HEADER).ok()?;
        let extent = Extent {
            offset: u32::try_from(at).ok()?,
            head_bytes,
            body_bytes: u32::try_from(body.len()).ok()?,
        };
        self.bytes.extend_from_slice(body);
        u32::try_from(self.bytes.len()).ok()?;

        let mut header = [0; ITEM_HEADER];
        put_at(&mut header, 0, &[kind]);
        put_at(&mut header, 4, &extent.head_bytes.to_le_bytes());
        put_at(&mut header, 8, &extent.body_bytes.to_le_bytes());
        put_at(&mut header, 12, &crc32c::crc32c(body).to_le_bytes());
        let head = slice(&self.bytes, at + ITEM_HEADER, at + ITEM_HEADER + head_bytes as usize);
        let head_crc = crc32c::crc32c_append(crc32c::crc32c(slice(&header, 0, 16)), head);
        put_at(&mut header, 16, &head_crc.to_le_bytes());
        put_at(&mut self.bytes, at, &header);
        self.items.push(extent.offset);
        Some(extent)
    }

    /// Writes the header. The frame is what is returned, with its CRC.
    pub(crate) fn finish(mut self, batch: u64, previous_crc: u32) -> (Vec<u8>, u32) {
        let length = count(self.bytes.len());
        put_at(&mut self.bytes, 0, &FRAME_MAGIC);
        put_at(&mut self.bytes, 4, &length.to_le_bytes());
        put_at(&mut self.bytes, 8, &batch.to_le_bytes());
        put_at(&mut self.bytes, 16, &previous_crc.to_le_bytes());
        put_at(&mut self.bytes, 20, &count(self.items.len()).to_le_bytes());
        let mut crc = crc32c::crc32c(slice(&self.bytes, 0, 28));
        for item in &self.items {
            crc = crc32c::crc32c_append(crc, slice(&self.bytes, *item as usize, *item as usize + ITEM_HEADER));
        }
        put_at(&mut self.bytes, 28, &crc.to_le_bytes());
        (self.bytes, crc)
    }
}

fn encode_record(out: &mut Vec<u8>, thread: ThreadId, record: &Record) {
    let proof = record.proof.as_ref();
    let bits = [
        proof.is_some(),
        proof.is_some_and(|proof| proof.seen.is_some()),
        proof.is_some_and(|proof| proof.key.is_some()),
        proof.is_some_and(|proof| proof.audience.is_some()),
        proof.is_some_and(|proof| proof.id.is_some()),
        proof.is_some_and(|proof| proof.action_type.is_some()),
        record.about.is_some(),
        record.spec_author.is_some(),
    ];
    let bits = bits
        .iter()
        .enumerate()
        .fold(0_u8, |bits, (at, set)| bits | (u8::from(*set) << at));
    let author = record.author.as_str().as_bytes();
    out.extend_from_slice(thread.as_bytes());
    out.extend_from_slice(&record.seq.get().to_le_bytes());
    out.extend_from_slice(record.id.as_bytes());
    out.extend_from_slice(&record.timestamp.get().to_le_bytes());
    out.extend_from_slice(&record.messages.to_le_bytes());
    out.extend_from_slice(record.content_hash.as_bytes());
    out.extend_from_slice(record.root.as_bytes());
    // A user id has at most 255 bytes (C3), a tree of at most 2^53 leaves at most 54 nodes for one of them.
    out.extend_from_slice(&[
        kind_code(&record.kind),
        bits,
        u8::try_from(record.nodes.len()).unwrap_or(u8::MAX),
        u8::try_from(author.len()).unwrap_or(u8::MAX),
    ]);
    out.extend_from_slice(author);
    for node in &record.nodes {
        out.extend_from_slice(node.as_bytes());
    }
    if let Kind::Other(text) = &record.kind {
        put_text(out, text);
    }
    if let Some(proof) = proof {
        out.extend_from_slice(&proof.sent_at.get().to_le_bytes());
        out.extend_from_slice(proof.sig.as_bytes());
        if let Some(seen) = proof.seen {
            out.extend_from_slice(&seen.seq.get().to_le_bytes());
            out.extend_from_slice(seen.root.as_bytes());
        }
        if let Some(key) = &proof.key {
            out.extend_from_slice(key.as_bytes());
        }
        if let Some(audience) = &proof.audience {
            put_text(out, audience.as_str());
        }
        if let Some(id) = &proof.id {
            out.extend_from_slice(id.as_bytes());
        }
        if let Some(action_type) = &proof.action_type {
            put_text(out, action_type);
        }
    }
    if let Some(about) = &record.about {
        out.extend_from_slice(about.as_bytes());
    }
    if let Some(spec_author) = &record.spec_author {
        put_text(out, spec_author.as_str());
    }
}

fn decode_record(head: &[u8]) -> Option<(ThreadId, Record)> {
    let mut fields = Fields(head);
    let thread = ThreadId::from_bytes(fields.array()?);
    let (seq, id, timestamp) = (fields.seq()?, Id::from_bytes(fields.array()?), fields.time()?);
    let (messages, content_hash, root) = (fields.u64()?, fields.hash()?, fields.hash()?);
    let (kind, bits, node_count, author_bytes) = (fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?);
    let author = std::str::from_utf8(fields.take(usize::from(author_bytes))?)
        .ok()?
        .parse()
        .ok()?;
    let nodes = (0..node_count).map(|_| fields.hash()).collect::<Option<Vec<_>>>()?;
    let kind = if kind == OTHER_KIND {
        Kind::Other(fields.text()?.into())
    } else {
        kind_of_code(kind)?
    };
    let bit = |at: u8| bits & (1 << at) != 0;
    let proof = if bit(0) {
        Some(Proof {
            sent_at: fields.time()?,
            sig: Signature::from_bytes(fields.array()?),
            seen: if bit(1) {
                Some(Cursor {
                    seq: fields.seq()?,
                    root: fields.hash()?,
                })
            } else {
                None
            },
            key: if bit(2) {
                Some(PublicKey::from_bytes(fields.array()?))
            } else {
                None
            },
            audience: if bit(3) {
                Some(fields.text()?.parse().ok()?)
            } else {
                None
            },
            id: if bit(4) {
                Some(Id::from_bytes(fields.array()?))
            } else {
                None
            },
            action_type: if bit(5) { Some(fields.text()?.into()) } else { None },
        })
    } else {
        None
    };
    let about = if bit(6) {
        Some(Id::from_bytes(fields.array()?))
    } else {
        None
    };
    let spec_author = if bit(7) {
        Some(fields.text()?.parse().ok()?)
    } else {
        None
    };
    let body = Body::Erased(Seq::ZERO);
    let record = Record {
        seq,
        id,
        kind,
        author,
        timestamp,
        content_hash,
        proof,
        body,
        root,
        nodes,
        messages,
        about,
        spec_author,
    };
    fields.0.is_empty().then_some((thread, record))
}

fn encode_facts(out: &mut Vec<u8>, thread: ThreadId, last: Seq, facts: &Facts, awaiting_as_before: bool) {
    out.extend_from_slice(thread.as_bytes());
    out.extend_from_slice(&last.get().to_le_bytes());
    out.extend_from_slice(&count(facts.erase.len()).to_le_bytes());
    for (erased, by) in &facts.erase {
        out.extend_from_slice(&erased.get().to_le_bytes());
        out.extend_from_slice(&by.get().to_le_bytes());
    }
    out.extend_from_slice(&count(facts.members.len()).to_le_bytes());
    for (user, row) in &facts.members {
        put_text(out, user.as_str());
        out.extend_from_slice(&member_bytes(*row));
    }
    put_summary(out, &facts.summary);
    if awaiting_as_before {
        out.push(0);
    } else {
        out.push(1);
        put_awaiting(out, &facts.summary.awaiting);
    }
}

fn decode_facts(head: &[u8]) -> Option<StoredFacts> {
    let mut fields = Fields(head);
    let (thread, last) = (ThreadId::from_bytes(fields.array()?), fields.seq()?);
    let erase = (0..fields.u32()?)
        .map(|_| Some((fields.seq()?, fields.seq()?)))
        .collect::<Option<_>>()?;
    let members = (0..fields.u32()?)
        .map(|_| Some((fields.user()?, member_of_bytes(fields.array()?)?)))
        .collect::<Option<_>>()?;
    let mut summary = fields.summary()?;
    let awaiting_as_before = match fields.u8()? {
        0 => true,
        1 => {
            summary.awaiting = fields.awaiting()?;
            false
        }
        _ => return None,
    };
    fields.0.is_empty().then_some(StoredFacts {
        thread,
        last,
        erase,
        members,
        summary,
        awaiting_as_before,
    })
}

fn decode_put(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Fields(head);
    let key_bytes = fields.u32()? as usize;
    let key = fields.take(key_bytes)?;
    Some((key, fields.0))
}

/// A kind as one byte, or that its text follows.
pub(crate) fn kind_code(kind: &Kind) -> u8 {
    let known = Kind::KNOWN
        .iter()
        .position(|known| known == kind)
        .and_then(|at| u8::try_from(at + 1).ok());
    known.unwrap_or(OTHER_KIND)
}

/// The kind behind a code; none for codes that stand for none.
pub(crate) fn kind_of_code(code: u8) -> Option<Kind> {
    Kind::KNOWN.get(usize::from(code).checked_sub(1)?).cloned()
}

/// A member's row as two bytes.
pub(crate) fn member_bytes(row: Option<MemberFact>) -> [u8; 2] {
    let Some(MemberFact { role, joined }) = row else {
        return [0, 0];
    };
    let role = match role {
        Role::Reader => 1,
        Role::CoAuthor => 2,
        Role::Owner => 3,
    };
    [role, u8::from(joined)]
}

/// The row behind two bytes; none within where it says that there is no member.
pub(crate) fn member_of_bytes(bytes: [u8; 2]) -> Option<Option<MemberFact>> {
    let [role, joined] = bytes;
    let joined = match joined {
        0 => false,
        1 => true,
        _ => return None,
    };
    let role = match role {
        0 => return (!joined).then_some(None),
        1 => Role::Reader,
        2 => Role::CoAuthor,
        3 => Role::Owner,
        _ => return None,
    };
    Some(Some(MemberFact { role, joined }))
}

/// A summary without `awaiting`.
pub(crate) fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    put_text(out, &summary.title);
    out.push(u8::from(summary.visibility == Visibility::Public));
    out.extend_from_slice(&summary.messages.to_le_bytes());
    out.extend_from_slice(&summary.last_activity.get().to_le_bytes());
    match summary.due {
        None => out.push(0),
        Some(due) => {
            out.push(1);
            out.extend_from_slice(&due.get().to_le_bytes());
        }
    }
}

pub(crate) fn put_awaiting(out: &mut Vec<u8>, awaiting: &[(UserId, u32)]) {
    out.extend_from_slice(&count(awaiting.len()).to_le_bytes());
    for (user, n) in awaiting {
        put_text(out, user.as_str());
        out.extend_from_slice(&n.to_le_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&count(text.len()).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A length as a field. What is too long for one makes a frame too long, which its builder refuses.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Overwrites bytes within a buffer that is known to be long enough.
fn put_at(buffer: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = buffer.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}

/// A part of bytes that are known to be long enough.
fn slice(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    bytes.get(from..to).unwrap_or_default()
}

/// Bytes that are read from the front. Every answer is none where they are too few or stand for nothing.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn seq(&mut self) -> Option<Seq> {
        self.u64().and_then(Seq::new)
    }

    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        self.u64().and_then(Timestamp::new)
    }

    pub(crate) fn hash(&mut self) -> Option<Hash> {
        self.array().map(Hash::from_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let bytes = self.u32()? as usize;
        std::str::from_utf8(self.take(bytes)?).ok()
    }

    pub(crate) fn user(&mut self) -> Option<UserId> {
        self.text()?.parse().ok()
    }

    pub(crate) fn summary(&mut self) -> Option<Summary> {
        Some(Summary {
            title: self.text()?.into(),
            visibility: match self.u8()? {
                0 => Visibility::Private,
                1 => Visibility::Public,
                _ => return None,
            },
            messages: self.u64()?,
            last_activity: self.time()?,
            due: match self.u8()? {
                0 => None,
                1 => Some(self.time()?),
                _ => return None,
            },
            awaiting: Vec::new(),
        })
    }

    pub(crate) fn awaiting(&mut self) -> Option<Vec<(UserId, u32)>> {
        (0..self.u32()?).map(|_| Some((self.user()?, self.u32()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Chain, sample_thread, sample_user};

    fn sample() -> (Chain, Facts) {
        let mut chain = Chain::new(sample_thread(1));
        chain.append(&Kind::KNOWN);
        let id = chain.new_id();
        chain.entry(Kind::Other("reaction_set".into()), id, Some(id), "later");
        let mut facts = chain.facts();
        facts.erase = vec![(Seq::saturating(2), Seq::saturating(4))];
        facts.members = vec![
            (
                sample_user(1),
                Some(MemberFact {
                    role: Role::CoAuthor,
                    joined: true,
                }),
            ),
            (sample_user(2), None),
        ];
        facts.summary.due = Timestamp::new(77);
        facts.summary.awaiting = vec![(sample_user(3), 2)];
        (chain, facts)
    }

    fn frame(chain: &Chain, facts: &Facts) -> Vec<u8> {
        let mut builder = FrameBuilder::new(Vec::new());
        for record in &chain.records {
            builder.record(sample_thread(1), record).unwrap();
        }
        builder.facts(sample_thread(1), chain.seq(), facts, false).unwrap();
        builder.put(b"key", b"value").unwrap();
        builder.seal().unwrap();
        builder.finish(5, 77).0
    }

    #[test]
    fn a_frame_says_what_was_put_into_it() {
        let (chain, facts) = sample();
        let bytes = frame(&chain, &facts);
        let parsed = Frame::parse(&bytes).unwrap();
        assert_eq!(
            (
                parsed.header.batch,
                parsed.header.previous_crc,
                parsed.header.length as usize
            ),
            (5, 77, bytes.len())
        );
        let (records, others) = parsed.items.split_at(chain.records.len());
        for (item, expected) in records.iter().zip(&chain.records) {
            let Item::Record(thread, record) = item.decode().unwrap() else {
                panic!("a record")
            };
            assert_eq!(thread, sample_thread(1));
            assert!(item.body_holds() && !item.body_is_zero());
            assert_eq!(Some(item.body), expected.body.text().map(str::as_bytes));
            assert_eq!(
                *record,
                Record {
                    body: Body::Erased(Seq::ZERO),
                    ..expected.clone()
                }
            );
        }
        let others: Vec<_> = others.iter().map(|item| item.decode().unwrap()).collect();
        let [Item::Facts(stored), Item::Put(b"key", b"value"), Item::Seal] = &others[..] else {
            panic!("{others:?}")
        };
        assert_eq!(
            (stored.thread, stored.last, stored.awaiting_as_before),
            (sample_thread(1), chain.seq(), false)
        );
        assert_eq!(
            Facts {
                erase: stored.erase.clone(),
                members: stored.members.clone(),
                summary: stored.summary.clone()
            },
            facts
        );
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let (chain, facts) = sample();
        let good = frame(&chain, &facts);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let noticed = Frame::parse(&bad).map_or(true, |frame| !frame.items.iter().all(RawItem::body_holds));
                assert!(noticed, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_frame_is_noticed() {
        let (chain, facts) = sample();
        let good = frame(&chain, &facts);
        for length in 0..good.len() {
            assert!(Frame::parse(&good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn l6_an_erased_body_leaves_the_frame_good() {
        let (chain, facts) = sample();
        let mut builder = FrameBuilder::new(vec![1; 99]);
        let extent = builder.record(sample_thread(1), &chain.records[0]).unwrap();
        builder.facts(sample_thread(1), chain.seq(), &facts, true).unwrap();
        builder.erase(extent);
        let (bytes, _) = builder.finish(1, 0);
        let parsed = Frame::parse(&bytes).unwrap();
        assert!(parsed.items[0].body_is_zero() && !parsed.items[0].body_holds());
        let Item::Facts(stored) = parsed.items[1].decode().unwrap() else {
            panic!("facts")
        };
        assert!(stored.awaiting_as_before && stored.summary.awaiting.is_empty());
    }

    #[test]
    fn heads_that_are_cut_or_changed_never_panic() {
        let (chain, facts) = sample();
        let bytes = frame(&chain, &facts);
        for item in Frame::parse(&bytes).unwrap().items {
            for length in 0..item.head.len() {
                let cut = RawItem {
                    head: &item.head[..length],
                    ..item
                };
                // A put's value is whatever is left.
                assert!(item.kind == PUT || cut.decode().is_err(), "{length} bytes of {item:?}");
            }
            for at in 0..item.head.len() {
                for change in [1, 0x80, 0xff] {
                    let mut head = item.head.to_vec();
                    head[at] ^= change;
                    let _ = RawItem { head: &head, ..item }.decode();
                }
            }
        }
    }

    #[test]
    fn a_segments_header_is_checked_whole() {
        let header = SegmentHeader {
            number: 3,
            first_batch: 99,
            previous_crc: 5,
        };
        let good = header.to_bytes();
        assert_eq!(SegmentHeader::parse(&good), Ok(header));
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 4;
            assert!(SegmentHeader::parse(&bad).is_err(), "byte {at}");
        }
        assert!(SegmentHeader::parse(&good[..47]).is_err());
    }
}
