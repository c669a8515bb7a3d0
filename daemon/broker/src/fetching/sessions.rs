//! Fetch sessions (KIP-227): a consumer says once which partitions it reads, and from then on only what changes; the
//! answers leave out partitions of which there is nothing to say.
//!
//! A session belongs to whoever knows its id and its next epoch. There are only so many, of only so many partitions; a
//! new one that finds no room takes the place of one that was not used for [`EVICTION_MS`], else of one at least as small
//! and as old as that, else the client is told that it has none (id 0) and goes on without. These are Kafka's rules
//! (`FetchSessionCache`), except that nobody is privileged: followers do not fetch here.
//!
//! Never held: both locks in the order session, cache.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::FetchRequest;
use tradewind_wire::messages::fetch::PartitionData;

use super::{Answer, Asked, Named};
use crate::metrics;

/// A session unused for so long may go, and a smaller one of at least this age (`min.incremental.fetch.session.eviction.ms`).
pub(crate) const EVICTION_MS: u64 = 120_000;
/// At most this many partitions in all sessions together.
pub(crate) const PARTITIONS_MAX: usize = 500_000;

/// The epoch of a request without a session.
const NO_SESSION: i32 = -1;
/// The epoch of a request that begins one.
const BEGIN: i32 = 0;
/// The first version that names topics by their ids.
const IDS_FROM: i16 = 13;

/// Every session of a daemon.
pub(crate) struct Sessions {
    slots: usize,
    partitions_max: usize,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    sessions: HashMap<i32, Slot>,
    /// (last used, id)
    by_use: BTreeSet<(u64, i32)>,
    /// (size, id) of those that are old enough to make room for a larger one.
    by_size: BTreeSet<(usize, i32)>,
    partitions: usize,
}

struct Slot {
    session: Arc<Mutex<Session>>,
    created_ms: u64,
    used_ms: u64,
    size: usize,
}

/// The partitions of one session, in the order in which they are read next.
pub(crate) struct Session {
    id: i32,
    /// The epoch that the next request must have.
    epoch: i32,
    by_ids: bool,
    order: BTreeMap<u64, Known>,
    places: HashMap<(Named, i32), u64>,
    next_place: u64,
}

/// A partition of a session, and what the client was last told of it.
struct Known {
    asked: Asked,
    high_watermark: i64,
    log_start: i64,
}

/// What one request asks for, and in what relation to a session.
pub(crate) enum Fetching {
    /// No session.
    Alone(Vec<Asked>),
    /// All of what a new session is to hold.
    Begin {
        /// The partitions.
        asked: Vec<Asked>,
        /// Whether by topic ids.
        by_ids: bool,
    },
    /// The next request of a session.
    Next {
        /// The session.
        session: Arc<Mutex<Session>>,
        /// The epoch that it must still have when the answer is made: another request would have moved it on.
        epoch: i32,
        /// The session's partitions, in the order in which to read them.
        asked: Vec<Asked>,
    },
}

impl Fetching {
    pub(crate) fn asked(&self) -> &[Asked] {
        match self {
            Self::Alone(asked) | Self::Begin { asked, .. } | Self::Next { asked, .. } => asked,
        }
    }
}

impl Sessions {
    /// Room for `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    pub(crate) fn new(slots: usize) -> Self {
        Self::bounded(slots, PARTITIONS_MAX)
    }

    pub(crate) fn bounded(slots: usize, partitions_max: usize) -> Self {
        Self {
            slots,
            partitions_max,
            cache: Mutex::default(),
        }
    }

    /// Takes a request into its session. The error is the whole answer.
    pub(crate) fn begin(
        &self,
        request: &FetchRequest,
        version: i16,
        now_ms: u64,
    ) -> Result<Fetching, ErrorCode> {
        let by_ids = version >= IDS_FROM;
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == NO_SESSION || epoch == BEGIN {
            if id != 0 {
                // Whoever asks for everything anew has given the old session up.
                self.cache.lock().remove(id);
            }
            let asked = asked(request).collect();
            return Ok(if epoch == NO_SESSION {
                Fetching::Alone(asked)
            } else {
                Fetching::Begin { asked, by_ids }
            });
        }
        let mut cache = self.cache.lock();
        let slot = cache.sessions.get(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let session = Arc::clone(&slot.session);
        let mut held = session.lock();
        if held.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if held.by_ids != by_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        held.update(request);
        let grown = held.order.len().saturating_sub(slot.size);
        if held.order.is_empty() || cache.partitions + grown > self.partitions_max {
            cache.remove(id);
            return if held.order.is_empty() {
                Ok(Fetching::Alone(Vec::new()))
            } else {
                // The client begins anew, and is told then that there is no room.
                Err(ErrorCode::FetchSessionIdNotFound)
            };
        }
        held.epoch = next_epoch(held.epoch);
        cache.touch(id, held.order.len(), now_ms);
        let (epoch, asked) = (held.epoch, held.asked());
        drop(held);
        Ok(Fetching::Next {
            session,
            epoch,
            asked,
        })
    }

    /// Takes out of the answers what needs not be said. Returns the session's id for the client and what is left, or the
    /// error that is the whole answer.
    pub(crate) fn finish(
        &self,
        fetching: &Fetching,
        answers: Vec<Answer>,
        now_ms: u64,
    ) -> Result<(i32, Vec<Answer>), (i32, ErrorCode)> {
        match fetching {
            Fetching::Alone(_) => Ok((0, answers)),
            Fetching::Begin { by_ids, .. } => Ok((self.create(*by_ids, &answers, now_ms), answers)),
            Fetching::Next { session, epoch, .. } => {
                let mut session = session.lock();
                if session.epoch != *epoch {
                    return Err((session.id, ErrorCode::InvalidFetchSessionEpoch));
                }
                let news = answers
                    .into_iter()
                    .filter(|(asked, data)| session.note(asked, data))
                    .collect();
                Ok((session.id, news))
            }
        }
    }

    fn create(&self, by_ids: bool, answers: &[Answer], now_ms: u64) -> i32 {
        let mut cache = self.cache.lock();
        if answers.is_empty() || !cache.make_room(answers.len(), now_ms, self.slots, self.partitions_max) {
            return 0;
        }
        let id = loop {
            let id = rand::random_range(1..i32::MAX);
            if !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            id,
            epoch: next_epoch(BEGIN),
            by_ids,
            order: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        for (asked, data) in answers {
            session.add(asked.clone());
            session.note(asked, data);
        }
        let size = session.order.len();
        let slot = Slot {
            session: Arc::new(Mutex::new(session)),
            created_ms: now_ms,
            used_ms: now_ms,
            size: 0,
        };
        cache.sessions.insert(id, slot);
        cache.touch(id, size, now_ms);
        id
    }
}

impl Cache {
    /// Whether a session of `size` partitions may be added, after one or more that have to go for it are gone.
    fn make_room(&mut self, size: usize, now_ms: u64, slots: usize, partitions_max: usize) -> bool {
        while self.sessions.len() >= slots || self.partitions + size > partitions_max {
            let stale = self
                .by_use
                .first()
                .filter(|(used_ms, _)| now_ms.saturating_sub(*used_ms) > EVICTION_MS);
            let smaller = self.by_size.first().filter(|(other, _)| *other <= size);
            let stale = stale.map(|(_, id)| *id);
            let Some(id) = stale.or_else(|| smaller.map(|(_, id)| *id)) else {
                return false;
            };
            self.remove(id);
            metrics::fetch_session_evicted();
        }
        true
    }

    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.sessions.remove(&id) {
            self.by_use.remove(&(slot.used_ms, id));
            self.by_size.remove(&(slot.size, id));
            self.partitions -= slot.size;
            metrics::fetch_sessions(self.sessions.len(), self.partitions);
        }
    }

    /// The session is used now, and has so many partitions.
    fn touch(&mut self, id: i32, size: usize, now_ms: u64) {
        let Some(slot) = self.sessions.get_mut(&id) else {
            return;
        };
        self.by_use.remove(&(slot.used_ms, id));
        self.by_size.remove(&(slot.size, id));
        self.partitions = self.partitions + size - slot.size;
        (slot.used_ms, slot.size) = (now_ms, size);
        self.by_use.insert((now_ms, id));
        if now_ms.saturating_sub(slot.created_ms) > EVICTION_MS {
            self.by_size.insert((size, id));
        }
        metrics::fetch_sessions(self.sessions.len(), self.partitions);
    }
}

impl Session {
    fn asked(&self) -> Vec<Asked> {
        self.order.values().map(|known| known.asked.clone()).collect()
    }

    fn update(&mut self, request: &FetchRequest) {
        for asked in asked(request) {
            match self.places.get(&(asked.topic.clone(), asked.partition)) {
                Some(place) => {
                    if let Some(known) = self.order.get_mut(place) {
                        known.asked = asked;
                    }
                }
                None => self.add(asked),
            }
        }
        for topic in &request.forgotten_topics_data {
            let named = Named {
                name: topic.topic.clone(),
                id: topic.topic_id,
            };
            for partition in &topic.partitions {
                if let Some(place) = self.places.remove(&(named.clone(), *partition)) {
                    self.order.remove(&place);
                }
            }
        }
    }

    /// Adds a partition of which the client knows nothing yet. One that is named twice stays where it was.
    fn add(&mut self, asked: Asked) {
        let key = (asked.topic.clone(), asked.partition);
        if self.places.contains_key(&key) {
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(key, place);
        self.order.insert(
            place,
            Known {
                asked,
                high_watermark: -1,
                log_start: -1,
            },
        );
    }

    /// Remembers what the client is told of a partition; returns whether it has to be told. A partition whose records are
    /// sent is read last by the next request: large ones must not starve those behind them.
    fn note(&mut self, asked: &Asked, data: &PartitionData) -> bool {
        let key = (asked.topic.clone(), asked.partition);
        let Some(place) = self.places.get_mut(&key) else {
            return true;
        };
        let Some(known) = self.order.get_mut(place) else {
            return true;
        };
        let failed = data.error_code != ErrorCode::None.code();
        let moved = known.high_watermark != data.high_watermark || known.log_start != data.log_start_offset;
        known.log_start = data.log_start_offset;
        // After an error it is told anew whatever it says then.
        known.high_watermark = if failed { -1 } else { data.high_watermark };
        let has_records = !data.records.is_empty();
        if has_records && let Some(known) = self.order.remove(place) {
            *place = self.next_place;
            self.next_place += 1;
            self.order.insert(*place, known);
        }
        has_records
            || moved
            || failed
            || data.preferred_read_replica >= 0
            || data.diverging_epoch.end_offset >= 0
    }
}

/// The partitions that a request names. Their names are copied: a session outlives the frame that it came in.
fn asked(request: &FetchRequest) -> impl Iterator<Item = Asked> {
    request.topics.iter().flat_map(|topic| {
        let named = Named {
            name: Str::from(&*topic.topic),
            id: topic.topic_id,
        };
        let of = move |wanted| Asked::new(named.clone(), wanted);
        topic.partitions.iter().map(of)
    })
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}
