//! How much one client may ask of the public interface: calls a second, calls, streams and connections at one
//! time, by its address. What a call does is no matter here.
//!
//! Clients on the machine itself are the operator's own (a gateway, a proxy, a tool) and not limited unless that
//! is asked for. The table is bounded: addresses beyond it share one entry.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::rate::{Bucket, Rate};

/// Addresses that are told apart.
const CLIENTS_MAX: usize = 8192;
/// How often the table is searched for clients that can be forgotten.
const SWEEP: Duration = Duration::from_secs(1);
/// The shortest wait that a client is told.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// What a client is told to wait when it has too much going on at one time.
const RETRY_CROWDED: Duration = Duration::from_millis(250);

/// What one client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Calls.
    pub calls: Rate,
    /// Calls at one time.
    pub calls_at_once: usize,
    /// Questions whether a request would be permitted: each costs a signature before it is known who asks.
    pub questions: Rate,
    /// Streams of events at one time.
    pub streams: usize,
    /// Connections at one time.
    pub connections: usize,
    /// Whether clients on the machine itself are limited too.
    pub local: bool,
}

/// What a client is told that calls too often.
const CALLS_A_SECOND: &str = "too many calls a second from your address";
/// Calls of one client a second, unless told otherwise.
pub const CALLS_PER_SECOND: u64 = 5_000;
/// Questions of one client a second.
pub const QUESTIONS_PER_SECOND: u64 = 50;
/// Connections of one client, unless told otherwise.
pub const CONNECTIONS: usize = 128;

impl ClientLimits {
    /// All limits from those that an operator may want to choose.
    pub fn new(calls: u64, connections: usize, local: bool) -> ClientLimits {
        let (calls, questions) = (Rate::new(calls, 2), Rate::new(QUESTIONS_PER_SECOND, 2));
        ClientLimits { calls, calls_at_once: 2048, questions, streams: 32, connections, local }
    }
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits::new(CALLS_PER_SECOND, CONNECTIONS, false)
    }
}

/// What a client has too much of, and when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) what: &'static str,
    pub(crate) retry: Duration,
}

/// What counts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Call,
    Stream,
    Connection,
}

/// All clients; a clone shares them.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    limits: ClientLimits,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug)]
struct Table {
    clients: HashMap<IpAddr, Client>,
    swept: Instant,
}

#[derive(Debug)]
struct Client {
    calls: Bucket,
    questions: Bucket,
    /// By [`Kind`].
    at_once: [usize; 3],
}

/// Something that a client has going on; it ends with this.
#[derive(Debug)]
pub(crate) struct Going {
    kind: Kind,
    /// None for clients that are not limited.
    of: Option<(Clients, IpAddr)>,
}

/// Stands for all addresses that found the table full.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

impl Clients {
    pub(crate) fn new(limits: ClientLimits) -> Clients {
        let table = Table { clients: HashMap::new(), swept: Instant::now() };
        Clients { limits, table: Arc::new(Mutex::new(table)) }
    }

    /// A call begins.
    pub(crate) fn call(&self, address: Option<IpAddr>, now: Instant) -> Result<Going, Refusal> {
        self.begin(Kind::Call, address, now)
    }

    /// A stream of events begins.
    pub(crate) fn stream(&self, address: Option<IpAddr>) -> Result<Going, Refusal> {
        self.begin(Kind::Stream, address, Instant::now())
    }

    /// A connection is open.
    pub(crate) fn connection(&self, address: IpAddr) -> Result<Going, Refusal> {
        self.begin(Kind::Connection, Some(address), Instant::now())
    }

    /// A question is asked, in a call that has begun.
    pub(crate) fn question(&self, address: Option<IpAddr>, now: Instant) -> Result<(), Refusal> {
        let what = "too many questions a second from your address";
        self.take(address, now, what, 1, |client| &mut client.questions)
    }

    /// A call that has begun does the work of so many more.
    pub(crate) fn more_calls(&self, address: Option<IpAddr>, n: u64, now: Instant) -> Result<(), Refusal> {
        // Where fewer are allowed at all, it takes all of them.
        let n = n.min(self.limits.calls.burst);
        self.take(address, now, CALLS_A_SECOND, n, |client| &mut client.calls)
    }

    fn take(
        &self,
        address: Option<IpAddr>,
        now: Instant,
        what: &'static str,
        n: u64,
        of: impl Fn(&mut Client) -> &mut Bucket,
    ) -> Result<(), Refusal> {
        let Some(address) = self.limited(address) else { return Ok(()) };
        let mut table = self.lock();
        let (_, client) = table.client(address, &self.limits, now);
        let bucket = of(client);
        if bucket.take(n, now) {
            return Ok(());
        }
        Err(Refusal { what, retry: bucket.until(n).max(RETRY_MIN) })
    }

    /// Under which address a client is limited, if it is.
    fn limited(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        address.map(group).filter(|a| self.limits.local || !a.is_loopback())
    }

    fn begin(&self, kind: Kind, address: Option<IpAddr>, now: Instant) -> Result<Going, Refusal> {
        let Some(address) = self.limited(address) else {
            return Ok(Going { kind, of: None });
        };
        let mut table = self.lock();
        let (address, client) = table.client(address, &self.limits, now);
        client.begin(kind, &self.limits, now)?;
        Ok(Going { kind, of: Some((self.clone(), address)) })
    }

    fn end(&self, kind: Kind, address: &IpAddr) {
        if let Some(client) = self.lock().clients.get_mut(address) {
            let count = &mut client.at_once[kind as usize];
            *count = count.saturating_sub(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if let Some((clients, address)) = &self.of {
            clients.end(self.kind, address);
        }
    }
}

impl Table {
    /// The client of an address, and the address under which it stands.
    fn client(&mut self, address: IpAddr, limits: &ClientLimits, now: Instant) -> (IpAddr, &mut Client) {
        let known = self.clients.contains_key(&address);
        if !known && self.clients.len() >= CLIENTS_MAX && now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.clients.retain(|_, c| !c.forgettable(now));
        }
        let full = !known && self.clients.len() >= CLIENTS_MAX;
        let address = if full { OTHERS } else { address };
        let fresh = || Client {
            calls: Bucket::new(limits.calls, now),
            questions: Bucket::new(limits.questions, now),
            at_once: [0; 3],
        };
        (address, self.clients.entry(address).or_insert_with(fresh))
    }
}

impl Client {
    fn begin(&mut self, kind: Kind, limits: &ClientLimits, now: Instant) -> Result<(), Refusal> {
        let (most, what) = match kind {
            Kind::Call => (limits.calls_at_once, "too many calls at one time from your address"),
            Kind::Stream => (limits.streams, "too many streams of events from your address"),
            Kind::Connection => (limits.connections, "too many connections from your address"),
        };
        let going = &mut self.at_once[kind as usize];
        if *going >= most {
            return Err(Refusal { what, retry: RETRY_CROWDED });
        }
        if kind == Kind::Call && !self.calls.take(1, now) {
            let retry = self.calls.until(1).max(RETRY_MIN);
            return Err(Refusal { what: CALLS_A_SECOND, retry });
        }
        *going += 1;
        Ok(())
    }

    fn forgettable(&mut self, now: Instant) -> bool {
        self.at_once == [0; 3] && self.calls.is_full(now) && self.questions.is_full(now)
    }
}

/// An IPv4 address stands for itself, an IPv6 address for its network: one host has all of it.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn limits() -> ClientLimits {
        ClientLimits { calls_at_once: 3, streams: 1, ..ClientLimits::new(10, 2, false) }
    }

    #[test]
    fn one_client_is_refused_and_told_when_to_come_again_and_others_are_served() {
        let (clients, now) = (Clients::new(limits()), Instant::now());
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..20 {
            clients.call(one, now).unwrap();
        }
        let refusal = clients.call(one, now).unwrap_err();
        assert_eq!(refusal.retry, Duration::from_millis(100));
        assert!(clients.call(other, now).is_ok());
        assert!(clients.call(one, now + refusal.retry).is_ok(), "the hint is right");
        assert!(clients.call(one, now + refusal.retry).is_err());
    }

    #[test]
    fn questions_have_a_rate_of_their_own() {
        let limits = ClientLimits { questions: Rate::new(2, 2), ..limits() };
        let (clients, now) = (Clients::new(limits), Instant::now());
        let one = ip("192.0.2.1");
        assert!((0..4).all(|_| clients.question(one, now).is_ok()));
        let refusal = clients.question(one, now).unwrap_err();
        assert_eq!(refusal.retry, Duration::from_millis(500));
        assert!(clients.question(ip("192.0.2.2"), now).is_ok() && clients.call(one, now).is_ok());
        assert!(clients.question(one, now + refusal.retry).is_ok(), "the hint is right");
        assert!((0..100).all(|_| clients.question(ip("127.0.0.1"), now).is_ok()), "the operator's own");
    }

    #[test]
    fn what_goes_on_at_one_time_is_bounded_by_kind_and_ends_with_its_guard() {
        let (clients, now) = (Clients::new(limits()), Instant::now());
        let one = ip("192.0.2.1");
        let calls: Vec<_> = (0..3).map(|_| clients.call(one, now).unwrap()).collect();
        assert!(clients.call(one, now).is_err());
        let _stream = clients.stream(one).unwrap();
        assert!(clients.stream(one).is_err(), "one stream");
        let _connections = [clients.connection(one.unwrap()), clients.connection(one.unwrap())];
        assert!(clients.connection(one.unwrap()).is_err());
        drop(calls);
        assert!(clients.call(one, now).is_ok());
    }

    #[test]
    fn the_machine_itself_is_limited_only_if_asked() {
        let now = Instant::now();
        for (local, limited) in [(false, false), (true, true)] {
            let clients = Clients::new(ClientLimits { local, ..limits() });
            for address in [ip("127.0.0.1"), ip("::1"), ip("::ffff:127.0.0.1")] {
                let refused = (0..100).any(|_| clients.call(address, now).is_err());
                assert_eq!(refused, limited, "{address:?}");
            }
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_the_table_is_bounded() {
        let (clients, now) = (Clients::new(limits()), Instant::now());
        for host in 0..20 {
            clients.call(ip(&format!("2001:db8::{host}")), now).unwrap();
        }
        assert!(clients.call(ip("2001:db8::ffff:1"), now).is_err());
        let many = (0..3 * CLIENTS_MAX as u32).map(|n| IpAddr::from((n + (10 << 24)).to_be_bytes()));
        let refused = many.filter(|a| clients.call(Some(*a), now).is_err()).count();
        assert!(refused > CLIENTS_MAX, "those that found the table full share one entry");
        assert!(clients.lock().clients.len() <= CLIENTS_MAX + 1);
        let later = now + Duration::from_secs(60);
        assert!(clients.call(ip("198.51.100.1"), later).is_ok());
        assert!(clients.lock().clients.len() <= 2, "who is quiet is forgotten");
    }
}
