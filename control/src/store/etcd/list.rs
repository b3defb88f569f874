//! Reads many keys: page by page, all at one revision.

use etcd_client::{Error, GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse};

use super::connect::Connection;
use super::trouble::{Kind, Trouble};
use crate::config::Prefix;
use crate::key::{Key, KeyRange};

/// Values in a page. One of the usual size is a few hundred octets, the largest 1.5 MiB.
const PAGE: i64 = 500;

/// Ranges that are asked for at once. etcd takes 128 by default (--max-txn-ops).
const RANGES_AT_ONCE: usize = 100;

/// How often a reading is begun again because its revision was compacted under it.
const RESTARTS_MAX: u32 = 5;

/// What stands in a range, at one revision.
pub(super) struct Read {
    pub revision: i64,
    pub found: Vec<KeyValue>,
}

/// Keys from `begin` on and before `end`.
#[derive(Clone)]
pub(super) struct Span {
    pub begin: Vec<u8>,
    pub end: Vec<u8>,
}

impl Span {
    /// All keys that begin so.
    pub fn of_prefix(prefix: &str) -> Span {
        let begin = prefix.as_bytes().to_vec();
        let mut end = begin.clone();
        // Prefixes end with `/`, of which there is a next.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Span { begin, end }
    }

    /// What is left of it before and after all keys that begin so.
    pub fn without(self, prefix: &str) -> [Span; 2] {
        let hole = Span::of_prefix(prefix);
        [Span { begin: self.begin, end: hole.begin }, Span { begin: hole.end, end: self.end }]
    }

    /// What is left of it after this key.
    fn after(&self, key: &[u8]) -> Span {
        let begin = key.iter().copied().chain([0]).collect();
        Span { begin, end: self.end.clone() }
    }
}

/// Reads all keys of these spans at one revision.
pub(super) async fn spans(
    connection: &Connection,
    spans: &[Span],
    doing: &str,
) -> Result<Read, Trouble> {
    let mut restarts = 0;
    loop {
        match spans_at_once(connection, spans, doing).await {
            Err(trouble) if trouble.kind == Kind::Compacted && restarts < RESTARTS_MAX => {
                restarts += 1;
            }
            result => return result,
        }
    }
}

async fn spans_at_once(
    connection: &Connection,
    spans: &[Span],
    doing: &str,
) -> Result<Read, Trouble> {
    let mut read = Read { revision: 0, found: Vec::new() };
    for span in spans {
        rest(connection, span.clone(), doing, &mut read).await?;
    }
    Ok(read)
}

/// Reads a span to its end, at the revision of what was read before, if anything was.
async fn rest(
    connection: &Connection,
    mut span: Span,
    doing: &str,
    read: &mut Read,
) -> Result<(), Trouble> {
    loop {
        let revision = read.revision;
        let page = connection.call(doing, |mut link| {
            let Span { begin, end } = span.clone();
            let options = GetOptions::new().with_range(end).with_limit(PAGE);
            let options = options.with_revision(revision);
            async move { link.kv.get(begin, Some(options)).await }
        });
        let mut page = page.await?;
        if read.revision == 0 {
            read.revision = page.header().map_or(0, |header| header.revision());
        }
        let more = page.more();
        let found = page.take_kvs();
        let last = found.last().map(|last| span.after(last.key()));
        read.found.extend(found);
        match last {
            Some(after) if more => span = after,
            _ => return Ok(()),
        }
    }
}

/// Reads these ranges, each at one revision; most of them at the same.
pub(super) async fn ranges(
    connection: &Connection,
    prefix: &Prefix,
    ranges: &[KeyRange],
) -> Result<Vec<(KeyRange, Read)>, Trouble> {
    let mut all = Vec::with_capacity(ranges.len());
    for ranges in ranges.chunks(RANGES_AT_ONCE) {
        let doing = match ranges {
            [one] => format!("reading {}", one.in_etcd(prefix)),
            [first, ..] => format!("reading {} and others", first.in_etcd(prefix)),
            [] => continue,
        };
        let answer = connection.call(&doing, |mut link| {
            let gets: Vec<TxnOp> = ranges.iter().map(|range| first_page(range, prefix)).collect();
            async move { link.kv.txn(Txn::new().and_then(gets)).await }
        });
        let answer = answer.await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        let pages = answer.op_responses().into_iter().filter_map(got);
        for (range, mut page) in ranges.iter().zip(pages) {
            let mut read = Read { revision, found: page.take_kvs() };
            if page.more()
                && let Some(last) = read.found.last()
            {
                let span = Span::of_prefix(&range.in_etcd(prefix));
                let after = span.after(last.key());
                match rest(connection, after, &doing, &mut read).await {
                    Err(trouble) if trouble.kind == Kind::Compacted => {
                        read = spans(connection, &[span], &doing).await?;
                    }
                    result => result?,
                }
            }
            all.push((range.clone(), read));
        }
    }
    Ok(all)
}

fn first_page(range: &KeyRange, prefix: &Prefix) -> TxnOp {
    let options = GetOptions::new().with_limit(PAGE);
    let options = if range.is_folder() { options.with_prefix() } else { options };
    TxnOp::get(range.in_etcd(prefix), Some(options))
}

fn got(response: TxnOpResponse) -> Option<GetResponse> {
    match response {
        TxnOpResponse::Get(got) => Some(got),
        _ => None,
    }
}

/// Where the cluster is, by a read that more than half of its members agree on.
pub(super) async fn probe(
    connection: &Connection,
    prefix: &Prefix,
    range: &KeyRange,
) -> Result<GetResponse, Trouble> {
    let key = range.in_etcd(prefix);
    let doing = format!("reading {key}");
    let answer = connection.call(&doing, |mut link| {
        let options = GetOptions::new().with_prefix().with_count_only();
        let key = key.clone();
        async move { link.kv.get(key, Some(options)).await as Result<GetResponse, Error> }
    });
    answer.await
}

/// Whether anything desired is left under the prefix, but for the ports of other hosts: these need not
/// be readable for us, and need a network.
pub(super) async fn anything(connection: &Connection, prefix: &Prefix) -> Result<bool, Trouble> {
    let doing = format!("counting what is left under {prefix}");
    let answer = connection.call(&doing, |mut link| {
        let count = |folder: String| {
            let options = GetOptions::new().with_prefix().with_count_only();
            TxnOp::get(format!("{prefix}{folder}"), Some(options))
        };
        let counts: Vec<TxnOp> = Key::folders_of_all().map(count).collect();
        async move { link.kv.txn(Txn::new().and_then(counts)).await }
    });
    let counts = answer.await?.op_responses();
    Ok(counts.into_iter().filter_map(got).any(|count| count.count() > 0))
}
