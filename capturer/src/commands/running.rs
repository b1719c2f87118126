//! Whether an agent of this config runs, and who listens on a port: what the kernel shows of other processes. Nothing
//! is changed, and no lock is tried, because that would make an agent fail that starts meanwhile.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A process that holds what the agent wants to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
    /// Name of its program.
    pub name: String,
}

/// Whether an agent could listen on an address.
#[derive(Debug)]
pub enum Port {
    /// An agent could listen there.
    Free,
    /// The agent of this data_dir seems to listen there.
    Own,
    /// An agent could not listen there: the error, and the process that listens, if it can be seen.
    Taken(io::Error, Option<Process>),
}

/// Looks at the address of an agent; `agent` is the process that holds its data_dir, if any.
pub fn port(address: SocketAddr, agent: Option<u32>) -> Port {
    let Err(error) = TcpListener::bind(address) else { return Port::Free };
    if error.kind() != io::ErrorKind::AddrInUse {
        return Port::Taken(error, None);
    }
    let holder = listener(address);
    // A user who may not look into other users' processes does not see who listens.
    match (agent, &holder) {
        (Some(_), None) => Port::Own,
        (Some(agent), Some(holder)) if holder.id == agent => Port::Own,
        _ => Port::Taken(error, holder),
    }
}

/// The process that holds the lock of a data_dir, by the kernel's list of locks.
pub fn agent(data_dir: &Path) -> Option<u32> {
    let lock = std::fs::metadata(data_dir.join("lock")).ok()?;
    holder(&std::fs::read_to_string("/proc/locks").ok()?, lock.ino())
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF`. Some file systems write the device differently, but the inode and
/// the kind of lock are enough to recognize ours.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ours = *words.get(1)? == "FLOCK" && words.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        ours.then(|| words[4].parse().ok()).flatten()
    })
}

fn listener(address: SocketAddr) -> Option<Process> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<String> = tables.iter().flat_map(|table| listening(table, address)).collect();
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let is_it = |fd: std::fs::DirEntry| {
        let target = std::fs::read_link(fd.path()).unwrap_or_default();
        sockets.iter().any(|socket| target.as_os_str() == socket.as_str())
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut numbered =
        processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    numbered.find_map(|(id, path)| {
        std::fs::read_dir(path.join("fd")).ok()?.flatten().any(is_it).then(|| {
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            Process { id, name: name.trim().to_owned() }
        })
    })
}

/// Inodes of the sockets in `/proc/net/tcp` that listen on this port, at this address or at every address.
fn listening(table: &str, address: SocketAddr) -> Vec<String> {
    let port = format!("{:04X}", address.port());
    let own = match address.ip() {
        // Each group of four bytes is in the machine's byte order.
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let words =
                words.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            words.map(|word| format!("{word:08X}")).collect()
        }
    };
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (at, of_port) = words.get(1)?.split_once(':')?;
        let is_any = |at: &str| at.bytes().all(|digit| digit == b'0');
        let meets = at == own || is_any(at) || is_any(&own);
        let listens = *words.get(3)? == "0A" && of_port == port && meets;
        listens.then(|| words.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_kernel_are_read() {
        let locks =
            "1: POSIX  ADVISORY  WRITE 7 fe:01:1234 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF\n";
        assert_eq!((holder(locks, 1234), holder(locks, 99)), (Some(4711), None));
    }

    #[test]
    fn who_listens_is_named_and_the_own_agent_is_no_fault() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = here.local_addr().unwrap();
        let Port::Taken(_, Some(process)) = port(address, None) else { panic!("{:?}", port(address, None)) };
        assert_eq!(process.id, std::process::id());
        assert!(!process.name.is_empty());
        assert!(matches!(port(address, Some(std::process::id())), Port::Own));
        let Port::Taken(_, Some(_)) = port(address, Some(1)) else { panic!("another process listens there") };
        drop(here);
        assert!(matches!(port(address, None), Port::Free));
    }
}
