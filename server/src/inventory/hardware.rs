//! What the kernel says of this machine, under /proc and /sys. No external command, no special right.
//!
//! Every question may stay without an answer: a container, another architecture or an older kernel lacks files. What
//! cannot be read is `None`; nothing here fails, and nothing here is unbounded.

use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A machine with more devices than this is told of in part: the real ones first.
const DEVICES_MAX: usize = 256;
const WORD_BYTES_MAX: usize = 256;
/// /proc/cpuinfo has some 1.5 KB for each logical processor.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
const SECTOR_BYTES: u64 = 512;

/// Features of processors that decide what can run on them.
const FLAGS_THAT_MATTER: &[&str] = &[
    "64bit-atomics",
    "aes",
    "amx_tile",
    "asimd",
    "atomics",
    "avx",
    "avx2",
    "avx512f",
    "crc32",
    "hypervisor",
    "lm",
    "nx",
    "pmull",
    "rdrand",
    "sha2",
    "sha_ni",
    "smx",
    "sse4_2",
    "sve",
    "sve2",
    "svm",
    "tme",
    "vmx",
];

/// Where the kernel's files are; elsewhere in tests.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) proc: PathBuf,
    pub(super) sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// Processors.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cpu {
    model: Option<String>,
    packages: Option<usize>,
    cores: Option<usize>,
    threads: Option<usize>,
    mhz_max: Option<f64>,
    flags: Vec<String>,
    flag_count: Option<usize>,
}

/// Main memory and swap space.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Memory {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
    swap_bytes: Option<u64>,
}

/// One block device.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Block {
    name: String,
    size_bytes: Option<u64>,
    model: Option<String>,
    vendor: Option<String>,
    serial: Option<String>,
    rotational: Option<bool>,
    removable: Option<bool>,
    read_only: Option<bool>,
}

/// One network interface.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Network {
    name: String,
    mac: Option<String>,
    state: Option<String>,
    speed_mbps: Option<u64>,
    mtu: Option<u64>,
    driver: Option<String>,
    physical: bool,
}

/// What the firmware says.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Dmi {
    vendor: Option<String>,
    product: Option<String>,
    version: Option<String>,
    pub(super) serial: Option<String>,
    uuid: Option<String>,
    board: Option<String>,
    bios_vendor: Option<String>,
    bios_version: Option<String>,
    bios_date: Option<String>,
}

/// The machine's name.
pub(super) fn host(roots: &Roots) -> String {
    word(&roots.proc.join("sys/kernel/hostname")).unwrap_or_else(|| "unknown".into())
}

/// Release of the running kernel.
pub(super) fn kernel(roots: &Roots) -> Option<String> {
    word(&roots.proc.join("sys/kernel/osrelease"))
}

pub(super) fn cpu(roots: &Roots) -> Option<Cpu> {
    let text = text(&roots.proc.join("cpuinfo"))?;
    let values = |names: &'static [&'static str]| {
        fields(&text).filter(move |(n, _)| names.contains(n)).map(|(_, v)| v)
    };
    let threads = values(&["processor"]).filter(|v| v.parse::<u32>().is_ok()).count();
    let (mut packages, mut cores, mut package) = (BTreeSet::new(), BTreeSet::new(), "");
    for (name, value) in fields(&text) {
        match name {
            "physical id" => {
                package = value;
                packages.insert(value);
            }
            "core id" => _ = cores.insert((package, value)),
            _ => {}
        }
    }
    let features: BTreeSet<&str> =
        values(&["flags", "Features"]).next().unwrap_or_default().split_whitespace().collect();
    let matter = features.iter().filter(|f| FLAGS_THAT_MATTER.contains(f));
    let khz: Option<f64> = parsed(&roots.sys.join("devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"));
    Some(Cpu {
        model: values(&["model name", "Model", "cpu model", "cpu"]).next().and_then(tidy),
        packages: some(packages.len()),
        cores: some(cores.len()),
        threads: some(threads),
        mhz_max: khz.map(|khz| khz / 1000.0),
        flags: matter.map(|f| (*f).to_owned()).collect(),
        flag_count: some(features.len()),
    })
}

pub(super) fn memory(roots: &Roots) -> Option<Memory> {
    let text = text(&roots.proc.join("meminfo"))?;
    let bytes = |name: &str| {
        let (_, value) = fields(&text).find(|(n, _)| *n == name)?;
        let kib: u64 = value.split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(Memory {
        total_bytes: bytes("MemTotal"),
        available_bytes: bytes("MemAvailable"),
        swap_bytes: bytes("SwapTotal"),
    })
}

/// Disks and the like: what has a device behind it. Partitions, loops and memory disks have none.
pub(super) fn block(roots: &Roots) -> Option<Vec<Block>> {
    let devices = entries(&roots.sys.join("block"))?;
    let real = devices.into_iter().filter(|(_, path)| path.join("device").exists());
    let read = |(name, path): (String, PathBuf)| Block {
        name,
        size_bytes: parsed(&path.join("size")).and_then(|sectors: u64| sectors.checked_mul(SECTOR_BYTES)),
        model: word(&path.join("device/model")),
        vendor: word(&path.join("device/vendor")),
        // NVMe has it with the device, virtio with the disk
        serial: word(&path.join("device/serial")).or_else(|| word(&path.join("serial"))),
        rotational: flag(&path.join("queue/rotational")),
        removable: flag(&path.join("removable")),
        read_only: flag(&path.join("ro")),
    };
    Some(real.take(DEVICES_MAX).map(read).collect())
}

/// Network interfaces but for the loopback, those with a device first.
pub(super) fn network(roots: &Roots) -> Option<Vec<Network>> {
    const LOOPBACK: u32 = 772;
    let is_other = |path: &Path| parsed::<u32>(&path.join("type")) != Some(LOOPBACK);
    let mut interfaces = entries(&roots.sys.join("class/net"))?;
    // bonding keeps a plain file among the interfaces
    interfaces.retain(|(name, path)| path.is_dir() && name != "lo" && is_other(path));
    interfaces.sort_by_cached_key(|(_, path)| !path.join("device").exists());
    let read = |(name, path): (String, PathBuf)| Network {
        name,
        mac: word(&path.join("address")).filter(|mac| mac.chars().any(|c| !matches!(c, '0' | ':'))),
        state: word(&path.join("operstate")),
        // -1 or an error while there is no link
        speed_mbps: parsed(&path.join("speed")),
        mtu: parsed(&path.join("mtu")),
        driver: fs::read_link(path.join("device/driver"))
            .ok()
            .and_then(|to| tidy(&to.file_name()?.to_string_lossy())),
        physical: path.join("device").exists(),
    };
    Some(interfaces.into_iter().take(DEVICES_MAX).map(read).collect())
}

pub(super) fn dmi(roots: &Roots) -> Option<Dmi> {
    let dir = roots.sys.join("class/dmi/id");
    if !dir.is_dir() {
        return None;
    }
    let said = |name: &str| word(&dir.join(name));
    let board: Vec<_> = [said("board_vendor"), said("board_name")].into_iter().flatten().collect();
    Some(Dmi {
        vendor: said("sys_vendor"),
        product: said("product_name"),
        version: said("product_version"),
        serial: said("product_serial"),
        uuid: said("product_uuid"),
        board: tidy(&board.join(" ")),
        bios_vendor: said("bios_vendor"),
        bios_version: said("bios_version"),
        bios_date: said("bios_date"),
    })
}

/// `name : value` lines.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim()))
}

/// The entries of a directory, by name.
fn entries(dir: &Path) -> Option<Vec<(String, PathBuf)>> {
    let found = fs::read_dir(dir).ok()?.flatten();
    let mut found: Vec<_> = found.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect();
    found.sort();
    Some(found)
}

/// The whole of a file, within bounds and whatever its bytes.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a file says in a word or two; `None` when it is empty.
fn word(path: &Path) -> Option<String> {
    tidy(&text(path)?)
}

fn parsed<T: std::str::FromStr>(path: &Path) -> Option<T> {
    word(path)?.parse().ok()
}

fn flag(path: &Path) -> Option<bool> {
    parsed::<u8>(path).map(|n| n != 0)
}

/// Without blanks and control characters around it, and short.
fn tidy(text: &str) -> Option<String> {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    let text = text.trim_matches(odd);
    let text = &text[..text.floor_char_boundary(WORD_BYTES_MAX)];
    (!text.is_empty()).then(|| text.replace(|c: char| c.is_control(), " "))
}

fn some(count: usize) -> Option<usize> {
    (count > 0).then_some(count)
}
