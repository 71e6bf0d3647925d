//! What the validators use up, as the kernel and their own counters say, and the differences between two looks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assent_tests::network::{Network, cpu_of};

/// One look at all validators that run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// CPU seconds by the name of the thread, of all validators together.
    pub(crate) cpu_by_thread: BTreeMap<String, f64>,
    /// CPU seconds of each validator.
    pub(crate) cpu: Vec<f64>,
    /// CPU seconds of this process: the clients.
    pub(crate) own_cpu: f64,
    /// Bytes in the validators' folders, all together.
    pub(crate) disk: u64,
    /// Bytes that they had written to disk, what was overwritten and compacted since among them.
    pub(crate) written: u64,
    /// Bytes that they sent to their peers.
    pub(crate) sent: f64,
    /// Writes that waited for the disk.
    pub(crate) fsyncs: f64,
    /// The newest height.
    pub(crate) height: f64,
    /// Leaves of the newest state.
    pub(crate) leaves: f64,
    /// The largest resident memory, MiB.
    pub(crate) rss_mib: f64,
}

impl Look {
    pub(crate) fn at(network: &Network) -> Look {
        let mut look = Look { own_cpu: seconds(Path::new("/proc/self/stat")), ..Look::default() };
        for i in 0..network.nodes.len() {
            let Some(pid) = network.pid(i) else { continue };
            let proc = Path::new("/proc").join(pid.to_string());
            look.cpu.push(seconds(&proc.join("stat")));
            for thread in fs::read_dir(proc.join("task")).into_iter().flatten().flatten() {
                let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
                // Threads of a kind are numbered.
                let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_string();
                *look.cpu_by_thread.entry(name).or_default() += seconds(&thread.path().join("stat"));
            }
            look.disk += folder_bytes(&network.nodes[i].home);
            look.written += line(&proc.join("io"), "write_bytes:");
            look.rss_mib = look.rss_mib.max(line(&proc.join("status"), "VmRSS:") as f64 / 1024.0);
            let page = network.metrics(i).unwrap_or_default();
            look.sent += counter(&page, "assent_sent_bytes_total");
            look.fsyncs += counter(&page, "assent_fsyncs_total");
            look.leaves = look.leaves.max(counter(&page, "assent_state_leaves"));
            look.height = look.height.max(counter(&page, "assent_height"));
        }
        look
    }

    /// What was used up since an earlier look; leaves and memory as they are now.
    pub(crate) fn since(&self, before: &Look) -> Look {
        let thread = |(name, cpu): (&String, &f64)| {
            (name.clone(), cpu - before.cpu_by_thread.get(name).copied().unwrap_or_default())
        };
        Look {
            cpu_by_thread: self.cpu_by_thread.iter().map(thread).collect(),
            cpu: self.cpu.iter().zip(&before.cpu).map(|(now, then)| now - then).collect(),
            own_cpu: self.own_cpu - before.own_cpu,
            disk: self.disk.saturating_sub(before.disk),
            written: self.written.saturating_sub(before.written),
            sent: self.sent - before.sent,
            fsyncs: self.fsyncs - before.fsyncs,
            height: self.height - before.height,
            leaves: self.leaves,
            rss_mib: self.rss_mib,
        }
    }
}

/// CPU seconds of a process or thread; none of one that is gone.
fn seconds(stat: &Path) -> f64 {
    cpu_of(stat).map_or(0.0, |cpu| cpu.as_secs_f64())
}

/// The number on a line that begins so.
fn line(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn folder_bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            // Gone meanwhile.
            Err(_) => 0,
        })
        .sum()
}

fn counter(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|v| v.trim().parse().ok()).unwrap_or_default()
}
