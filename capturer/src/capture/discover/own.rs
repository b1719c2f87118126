//! The container in which the agent itself runs. With records on standard output it would capture its own output, each
//! line within the next, without end.

use crate::model::docker::Inspect;

/// How this process recognizes its container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnContainer {
    id: Option<String>,
    /// A container's host name is the beginning of its ID, unless another was set.
    host_name: Option<String>,
    /// The upper directory of its root, which the Engine reports, too. Its host name and its mounts can be replaced.
    upper_dir: Option<String>,
}

/// Digits of an ID in a container's host name.
const SHORT_DIGITS: usize = 12;

impl OwnContainer {
    /// From `/proc/self/mountinfo` and the host name.
    pub fn new(mountinfo: &str, host_name: &str) -> OwnContainer {
        let id = mountinfo.lines().find_map(id_of_mount).map(str::to_owned);
        let is_short_id = host_name.len() == SHORT_DIGITS && is_hex(host_name);
        let host_name = (id.is_none() && is_short_id && is_overlay(mountinfo)).then(|| host_name.to_owned());
        OwnContainer { id, host_name, upper_dir: upper_dir_of_root(mountinfo).map(str::to_owned) }
    }

    /// Whether a container is this one.
    pub fn is(&self, inspect: &Inspect) -> bool {
        let id = inspect.id.as_str();
        self.id.as_deref() == Some(id)
            || self.host_name.as_deref().is_some_and(|name| id.starts_with(name))
            || self.has_upper_dir_of(inspect)
    }

    /// With many layers the Engine mounts from within its directory, and the path is relative to that.
    fn has_upper_dir_of(&self, inspect: &Inspect) -> bool {
        let data = inspect.graph_driver.as_ref().and_then(|driver| driver.data.as_ref());
        let (Some(ours), Some(its)) = (&self.upper_dir, data.and_then(|data| data.upper_dir.as_ref())) else {
            return false;
        };
        std::path::Path::new(its).ends_with(ours)
    }
}

/// Engines mount a file from the container's directory over these. A host's own mounts name containers, too (their
/// shm), but never there.
fn id_of_mount(line: &str) -> Option<&str> {
    let mut fields = line.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let is_ours = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&point);
    root.split('/').find(|part| is_ours && part.len() == 64 && is_hex(part))
}

fn is_overlay(mountinfo: &str) -> bool {
    root(mountinfo).is_some_and(|line| line.contains(" - overlay "))
}

fn root(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find(|line| line.split(' ').nth(4) == Some("/"))
}

fn upper_dir_of_root(mountinfo: &str) -> Option<&str> {
    let (_, options) = root(mountinfo)?.split_once(" - overlay ")?;
    options
        .split([' ', ','])
        .find_map(|option| option.strip_prefix("upperdir="))
        .filter(|dir| !dir.is_empty())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2f6e3c19d1aa4f3c8e1f0ad2e4b18a4f6a6f0e5f51e7f1b7b7b3c2c4a1d0e9f8";

    fn inspect(id: &str, upper_dir: &str) -> Inspect {
        let text = format!(
            r#"{{"Id":"{id}","Name":"/a","GraphDriver":{{"Name":"overlay2","Data":{{"UpperDir":"{upper_dir}"}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// With `--network host` it has the host's name, and the three files may be mounted from the host.
    #[test]
    fn else_its_own_layer_does() {
        for upper in ["/var/lib/docker/overlay2/ab/diff", "ab/diff"] {
            let inside = format!(
                "600 540 0:52 / / rw - overlay overlay rw,lowerdir=l/X:l/Y,upperdir={upper},workdir=w\n"
            );
            let own = OwnContainer::new(&inside, "host");
            assert!(own.is(&inspect(ID, "/var/lib/docker/overlay2/ab/diff")), "{upper}");
            assert!(!own.is(&inspect(ID, "/var/lib/docker/overlay2/cd/diff")), "{upper}");
            assert!(!own.is(&inspect(ID, "")), "{upper}");
        }
    }

    #[test]
    fn the_mounts_of_a_container_name_it() {
        let inside = format!(
            "600 540 0:52 / / rw - overlay overlay rw,lowerdir=/x\n\
             620 600 8:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw\n\
             621 600 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"
        );
        let own = OwnContainer::new(&inside, "web-1");
        assert!(own.is(&inspect(ID, "")) && !own.is(&inspect(&ID.replace('2', "3"), "")));
    }

    /// A host mounts its containers' shm, but is none of them.
    #[test]
    fn a_host_is_no_container() {
        let host = format!(
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             90 22 0:47 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n"
        );
        assert_eq!(OwnContainer::new(&host, &ID[..12]), OwnContainer::default());
        assert!(!OwnContainer::new(&host, "host").is(&inspect(ID, "")));
        assert_eq!(OwnContainer::new("", ""), OwnContainer::default());
    }

    #[test]
    fn else_the_host_name_does() {
        let inside = "600 540 0:52 / / rw - overlay overlay rw\n";
        assert!(OwnContainer::new(inside, &ID[..12]).is(&inspect(ID, "")));
        assert!(!OwnContainer::new(inside, "web-1").is(&inspect(ID, "")));
    }
}
