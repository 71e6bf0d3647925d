//! Hosts for real processes: network namespaces of this machine, joined by a wire that can be made as bad as a
//! wide-area network gets. What runs in them is [`crate::network`]'s; nothing here knows of validators.
//!
//! ```text
//!  namespace i                               this machine
//!  eth0 198.18.R.i ───── veth ─────────────▶ bridge 198.18.R.254 ◀─ clients: never disturbed
//!  wan  198.19.R.i ───── VXLAN, by eth0 ───▶ Wire: one UDP socket ◀─ every frame between peers passes here
//! ```
//!
//! The wire delays, loses and cuts frame by frame, for each pair and direction by itself, so it needs no `netem`
//! in the kernel; a link that goes down goes down by `ip link set`. Everything is made by `ip` and taken away on
//! drop. What a killed process leaves behind is found by its name and removed by [`clean`].

use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sim::Random;

/// The most hosts of one wire.
pub const HOSTS_MAX: usize = 16;
/// Where the wire listens, and each namespace's end of it.
const WIRE_PORT: u16 = 14_789;
/// The bridge's place in its network.
const BRIDGE: u8 = 254;
/// Ethernet addresses of the wire's ends: these five bytes and the host's number.
const MAC: [u8; 5] = [0x02, 0xa5, 0, 0, 0];
/// VXLAN's header: a network number is there, and it is 1.
const VXLAN: [u8; 8] = [0x08, 0, 0, 0, 0, 0, 1, 0];
/// Frames under way at one time; a router has no more memory than that either.
const FRAMES_MAX: usize = 65_536;
/// How often the wire looks whether it is to end.
const BREATH: Duration = Duration::from_millis(100);

/// Namespaces with their wire.
pub struct Hosts {
    name: Name,
    subnet: u8,
    count: usize,
    wire: Arc<Wire>,
    threads: Vec<JoinHandle<()>>,
}

/// What a run's namespaces and devices are called: after the process that made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pid: u32,
    run: u32,
}

impl Name {
    fn namespace(self, host: usize) -> String {
        format!("assent-{}-{}-{host}", self.pid, self.run)
    }

    fn bridge(self) -> String {
        format!("ab{}-{}", self.pid, self.run)
    }

    fn veth(self, host: usize) -> String {
        format!("av{}-{}-{host}", self.pid, self.run)
    }

    /// Reads the numbers that follow a prefix: process and run.
    fn parse(text: &str, prefix: &str) -> Option<Name> {
        let mut numbers = text.strip_prefix(prefix)?.split('-').map(|n| n.parse().ok());
        Some(Name { pid: numbers.next()??, run: numbers.next()?? })
    }

    /// Whether the process that made it may still be there.
    fn is_alive(self) -> bool {
        std::path::Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// Whether this machine lets us make such hosts; if not, why.
pub fn possible() -> Result<(), String> {
    let hosts = Hosts::new(1, 0);
    hosts.map(drop).map_err(|e| format!("no network namespaces with bridge and VXLAN here: {e}"))
}

impl Hosts {
    /// So many hosts, joined by a perfect wire. What the wire will lose follows from the seed and the traffic.
    pub fn new(count: usize, seed: u64) -> io::Result<Hosts> {
        assert!((1..=HOSTS_MAX).contains(&count), "1 to {HOSTS_MAX} hosts");
        static RUN: AtomicU32 = AtomicU32::new(0);
        clean()?;
        let name = Name { pid: std::process::id(), run: RUN.fetch_add(1, Ordering::Relaxed) };
        // From here on whatever was made is taken away again if the rest fails.
        let made = Made(name);
        ip(&["link", "add", &name.bridge(), "type", "bridge"])?;
        let subnet = give_address(name)?;
        (0..count).try_for_each(|i| make_host(name, subnet, i))?;
        let wire = Arc::new(Wire::new(subnet, count, seed)?);
        let threads = vec![
            std::thread::spawn({
                let wire = wire.clone();
                move || wire.receive()
            }),
            std::thread::spawn({
                let wire = wire.clone();
                move || wire.deliver()
            }),
        ];
        std::mem::forget(made);
        Ok(Hosts { name, subnet, count, wire, threads })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// By what name an interrupt removes them with [`remove`].
    pub fn name(&self) -> Name {
        self.name
    }

    /// The namespace of a host, for `ip netns exec`.
    pub fn namespace(&self, host: usize) -> String {
        self.name.namespace(host)
    }

    /// Its address for clients.
    pub fn client_address(&self, host: usize) -> Ipv4Addr {
        address(18, self.subnet, host)
    }

    /// Its address for peers, behind the wire.
    pub fn peer_address(&self, host: usize) -> Ipv4Addr {
        address(19, self.subnet, host)
    }

    /// What lies between them.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Takes a host's peer interface down or up again.
    pub fn set_link(&self, host: usize, up: bool) -> io::Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.namespace(host), "link", "set", "wan", state])
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.wire.lock().ended = true;
        self.wire.news.notify_all();
        for thread in self.threads.drain(..) {
            // A wire that panicked has been seen by the test already.
            let _ = thread.join();
        }
        remove(self.name);
    }
}

/// Takes away what was made so far, unless forgotten.
struct Made(Name);

impl Drop for Made {
    fn drop(&mut self) {
        remove(self.0);
    }
}

fn address(second: u8, subnet: u8, host: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, second, subnet, host as u8 + 1)
}

/// Gives the bridge a network of 198.18.0.0/15 (kept free for tests by RFC 2544) that nobody here has yet.
fn give_address(name: Name) -> io::Result<u8> {
    let taken = output("ip", &["-o", "-4", "address", "show"])?;
    let first = name.pid.wrapping_add(name.run.wrapping_mul(37)) as u8;
    let free = (0..=255).map(|n| first.wrapping_add(n)).find(|n| !taken.contains(&format!(" 198.18.{n}.")));
    let subnet = free.ok_or_else(|| io::Error::other("all of 198.18.0.0/16 is taken"))?;
    let bridge = name.bridge();
    ip(&["address", "add", &format!("198.18.{subnet}.{BRIDGE}/24"), "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])?;
    Ok(subnet)
}

fn make_host(name: Name, subnet: u8, i: usize) -> io::Result<()> {
    let (ns, veth) = (name.namespace(i), name.veth(i));
    let (client, peer) = (address(18, subnet, i), address(19, subnet, i));
    let mac = format!("02:a5:00:00:00:{i:02x}");
    let remote = Ipv4Addr::new(198, 18, subnet, BRIDGE).to_string();
    ip(&["netns", "add", &ns])?;
    ip(&["link", "add", &veth, "type", "veth", "peer", "name", "eth0", "netns", &ns])?;
    ip(&["link", "set", &veth, "master", &name.bridge(), "up"])?;
    let inside = |args: &[&str]| ip(&[&["-n", &ns], args].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["address", "add", &format!("{client}/24"), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    let vxlan = ["type", "vxlan", "id", "1", "dstport", &WIRE_PORT.to_string(), "nolearning"];
    let ends = ["local", &client.to_string(), "remote", &remote];
    inside(&[&["link", "add", "wan", "address", &mac, "mtu", "1400"], &vxlan[..], &ends[..]].concat())?;
    // One packet a frame: the wire is told of each, as a real one is.
    inside(&["link", "set", "wan", "gso_max_segs", "1"])?;
    inside(&["address", "add", &format!("{peer}/24"), "dev", "wan"])?;
    inside(&["link", "set", "wan", "up"])
}

/// Removes a run's namespaces and bridge, and ends what still runs in them. What is not there is no error.
pub fn remove(name: Name) {
    for i in 0..HOSTS_MAX {
        if std::path::Path::new("/run/netns").join(name.namespace(i)).exists() {
            remove_namespace(&name.namespace(i));
        }
    }
    let _ = output("ip", &["link", "delete", &name.bridge()]);
}

fn remove_namespace(ns: &str) {
    let pids = output("ip", &["netns", "pids", ns]).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|p| p.parse().ok()) {
        // It may have ended by now.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = output("ip", &["netns", "delete", ns]);
}

/// Removes what runs that are no more have left behind; answers what it was.
pub fn clean() -> io::Result<Vec<String>> {
    let spaces = output("ip", &["netns", "list"])?;
    let links = output("ip", &["-o", "link", "show", "type", "bridge"])?;
    let mut left: Vec<Name> = spaces.lines().filter_map(|l| Name::parse(first_word(l), "assent-")).collect();
    let bridges = links.lines().filter_map(|l| l.split(": ").nth(1));
    left.extend(bridges.filter_map(|b| Name::parse(b, "ab")));
    left.retain(|name| !name.is_alive());
    left.sort();
    left.dedup();
    left.iter().for_each(|name| remove(*name));
    Ok(left.iter().map(|name| name.bridge()).collect())
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn ip(args: &[&str]) -> io::Result<()> {
    output("ip", args).map(drop)
}

fn output(program: &str, args: &[&str]) -> io::Result<String> {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output();
    let out = out.map_err(|e| io::Error::other(format!("{program} (package iproute2): {e}")))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&out.stderr);
    Err(io::Error::other(format!("{program} {}: {}", args.join(" "), why.trim())))
}

/// How one host's frames reach another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Whether they do.
    pub open: bool,
    /// How long each takes.
    pub delay: Duration,
    /// How many of 1000 are lost.
    pub loss_per_mille: u64,
}

/// What lies between the hosts.
pub struct Wire {
    socket: UdpSocket,
    ends: Vec<Ipv4Addr>,
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    paths: Vec<Vec<Path>>,
    under_way: BinaryHeap<Frame>,
    sequence: u64,
    random: Random,
    traffic: Traffic,
    ended: bool,
}

/// What passed, and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames handed over.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Stopped where a path was shut.
    pub cut: u64,
    /// Dropped because too many were under way.
    pub overflowed: u64,
}

/// A frame that is due at a time; those due at once keep their order.
struct Frame {
    due: Instant,
    sequence: u64,
    to: usize,
    bytes: Vec<u8>,
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}
impl Eq for Frame {}
impl PartialOrd for Frame {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Frame {
    /// The earliest is the greatest: a heap gives that one first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

impl Wire {
    fn new(subnet: u8, count: usize, seed: u64) -> io::Result<Wire> {
        let socket = UdpSocket::bind((Ipv4Addr::new(198, 18, subnet, BRIDGE), WIRE_PORT))?;
        socket.set_read_timeout(Some(BREATH))?;
        let perfect = Path { open: true, delay: Duration::ZERO, loss_per_mille: 0 };
        let state = State {
            paths: vec![vec![perfect; count]; count],
            under_way: BinaryHeap::new(),
            sequence: 0,
            random: Random::new(seed),
            traffic: Traffic::default(),
            ended: false,
        };
        let ends = (0..count).map(|i| address(18, subnet, i)).collect();
        Ok(Wire { socket, ends, state: Mutex::new(state), news: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes every path from one host to another: from, to, and how it is.
    pub fn edit(&self, change: impl Fn(usize, usize, &mut Path)) {
        let mut state = self.lock();
        for (from, row) in state.paths.iter_mut().enumerate() {
            row.iter_mut().enumerate().filter(|(to, _)| *to != from).for_each(|(to, p)| change(from, to, p));
        }
    }

    /// Shuts all paths between hosts of different groups; who is in no group is on its own.
    pub fn partition(&self, groups: &[&[usize]]) {
        let together = |a: usize, b: usize| groups.iter().any(|g| g.contains(&a) && g.contains(&b));
        self.edit(|from, to, path| path.open = together(from, to));
    }

    /// Opens all paths.
    pub fn heal(&self) {
        self.edit(|_, _, path| path.open = true);
    }

    /// What passed so far.
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic
    }

    /// Takes frames from all ends until the wire ends.
    fn receive(&self) {
        let mut buffer = vec![0; 65_536];
        loop {
            let received = self.socket.recv_from(&mut buffer);
            let mut state = self.lock();
            if state.ended {
                return;
            }
            // A timeout; or the answer to a frame that reached no namespace.
            let Ok((length, SocketAddr::V4(source))) = received else { continue };
            let Some(from) = self.ends.iter().position(|end| end == source.ip()) else { continue };
            if state.route(from, &mut buffer[..length]) {
                drop(state);
                self.news.notify_one();
            }
        }
    }

    /// Hands frames over when they are due.
    fn deliver(&self) {
        let mut state = self.lock();
        while !state.ended {
            let now = Instant::now();
            match state.under_way.peek().map(|frame| frame.due) {
                Some(due) if due <= now => {
                    let frame = state.under_way.pop().expect("it was just seen");
                    state.traffic.delivered += 1;
                    drop(state);
                    // A namespace that is going away takes nothing; then the frame is lost, as on any wire.
                    let _ =
                        self.socket.send_to(&frame.bytes, SocketAddrV4::new(self.ends[frame.to], WIRE_PORT));
                    state = self.lock();
                }
                due => {
                    let wait = due.map_or(BREATH, |due| due - now);
                    state = self.news.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

impl State {
    /// Puts a frame on its way to whom it is for; says whether there is news.
    fn route(&mut self, from: usize, packet: &mut [u8]) -> bool {
        let Some((header, frame)) = packet.split_at_mut_checked(VXLAN.len()) else { return false };
        if *header != VXLAN || !finish(frame) {
            return false;
        }
        let to_one = frame.starts_with(&MAC).then(|| usize::from(frame[5]));
        let to_all = frame.starts_with(&[0xff; 6]);
        let packet: Vec<u8> = [&VXLAN[..], frame].concat();
        for to in (0..self.paths.len()).filter(|to| *to != from && (to_all || to_one == Some(*to))) {
            self.send(from, to, &packet);
        }
        true
    }

    fn send(&mut self, from: usize, to: usize, packet: &[u8]) {
        let path = self.paths[from][to];
        if !path.open {
            self.traffic.cut += 1;
        } else if self.random.chance(path.loss_per_mille) {
            self.traffic.lost += 1;
        } else if self.under_way.len() >= FRAMES_MAX {
            self.traffic.overflowed += 1;
        } else {
            self.sequence += 1;
            let due = Instant::now() + path.delay;
            self.under_way.push(Frame { due, sequence: self.sequence, to, bytes: packet.to_vec() });
        }
    }
}

/// Does what a network card does for the kernel, which leaves the checksum of TCP to the card: computes it.
/// False for what is neither IPv4 nor ARP: nothing else is spoken here.
fn finish(frame: &mut [u8]) -> bool {
    const HEADER: usize = 14;
    let Some(kind) = frame.get(12..HEADER) else { return false };
    if kind == [0x08, 0x06] {
        return true;
    }
    if kind != [0x08, 0x00] || frame.len() < HEADER + 20 {
        return false;
    }
    let ip = &mut frame[HEADER..];
    let (begin, end) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    let is_tcp = ip[9] == 6;
    if end > ip.len() || (is_tcp && end < begin + 20) {
        return false;
    }
    if is_tcp {
        let pseudo = sum(&ip[12..20]) + 6 + (end - begin) as u32;
        let segment = &mut ip[begin..end];
        segment[16..18].fill(0);
        let mut total = pseudo + sum(segment);
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        segment[16..18].copy_from_slice(&(!(total as u16)).to_be_bytes());
    }
    true
}

/// The words of the Internet checksum (RFC 1071); at most 32 Ki of them, so 32 bits hold the sum.
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |b| u32::from(*b) << 8);
    words.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum::<u32>() + last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3.
    #[test]
    fn the_internet_checksum_is_that_of_the_standard() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0x2_ddf0);
    }

    #[test]
    fn names_tell_who_made_them() {
        let name = Name { pid: 4_194_304, run: 12 };
        assert_eq!(Name::parse(&name.namespace(3), "assent-"), Some(name));
        assert_eq!(Name::parse(&name.bridge(), "ab"), Some(name));
        assert_eq!(Name::parse("about", "ab"), None);
        assert!(name.veth(HOSTS_MAX - 1).len() <= 15 && !name.is_alive(), "the kernel allows 15 letters");
    }

    /// Frames come in the order of their times, and those of one time in the order in which they were sent.
    #[test]
    fn the_earliest_frame_is_first() {
        let now = Instant::now();
        let frame =
            |ms, sequence| Frame { due: now + Duration::from_millis(ms), sequence, to: 0, bytes: Vec::new() };
        let mut heap: BinaryHeap<_> = [frame(5, 1), frame(1, 3), frame(1, 2)].into();
        let order: Vec<_> = std::iter::from_fn(|| heap.pop()).map(|f| f.sequence).collect();
        assert_eq!(order, [2, 3, 1]);
    }
}
