//! `NO_PROXY`: the origins that are reached without an egress proxy. There is no standard for it; this is what curl
//! and Go agree on, and curl's reading where they do not.

use std::net::IpAddr;
use std::sync::Arc;

use super::build::names::normal;

/// A list of hosts, addresses and ranges. The default is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Arc<[Entry]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    what: What,
    /// Only this port; none: every port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Everything,
    /// A name and all below it; not the name itself where it was written `*.name`.
    Name {
        name: String,
        itself: bool,
    },
    /// An address, or the range of those that begin with the same bits.
    Range {
        address: IpAddr,
        bits: u8,
    },
}

impl NoProxy {
    /// Reads a list: separated by commas or spaces. Gives as well the places, counted from 1, of entries that cannot be
    /// read; they count for nothing.
    pub(super) fn read(text: &str) -> (Self, Vec<usize>) {
        let mut faulty = Vec::new();
        let items = text.split([',', ' ', '\t']).filter(|item| !item.is_empty());
        let entries = items.enumerate().filter_map(|(index, item)| {
            let entry = entry(item);
            if entry.is_none() {
                faulty.push(index + 1);
            }
            entry
        });
        (Self(entries.collect()), faulty)
    }

    /// Is it on the list? `host`: lower case, IPv6 without brackets.
    pub(super) fn takes(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|only| only == port)
                && match (&entry.what, address) {
                    (What::Everything, _) => true,
                    (What::Name { name, itself }, None) => match host.strip_suffix(name.as_str()) {
                        Some("") => *itself,
                        Some(below) => below.ends_with('.'),
                        None => false,
                    },
                    (What::Range { address: first, bits }, Some(address)) => {
                        begins_alike(*first, address, *bits)
                    }
                    (What::Name { .. }, Some(_)) | (What::Range { .. }, None) => false,
                }
        })
    }
}

fn entry(text: &str) -> Option<Entry> {
    if let Some((address, bits)) = text.split_once('/') {
        let address = address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse::<u8>().ok().filter(|bits| *bits <= widest)?;
        return Some(Entry { what: What::Range { address, bits }, port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address without brackets separate nothing.
        Some((host, port)) if text.parse::<IpAddr>().is_err() && !text.ends_with(']') => {
            (host, Some(port.parse::<u16>().ok()?))
        }
        _ => (text, None),
    };
    let what = match host {
        "*" => What::Everything,
        _ => match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                What::Range { address, bits: if address.is_ipv4() { 32 } else { 128 } }
            }
            Err(_) => {
                let (name, itself) = match host.strip_prefix("*.") {
                    Some(name) => (name, false),
                    // Go takes `.name` for what is below it alone.
                    None => (host.strip_prefix('.').unwrap_or(host), true),
                };
                What::Name { name: normal(name).ok()?, itself }
            }
        },
    };
    Some(Entry { what, port })
}

/// Do two addresses of one family begin with the same `bits`?
fn begins_alike(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let rest = |width: u32| width.saturating_sub(u32::from(bits));
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(rest(32)).unwrap_or(0) == 0,
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(rest(128)).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_a_name_and_what_is_below_it_at_a_label_boundary() {
        let cases = [
            ("", "api.example.com", false),
            ("*", "api.example.com", true),
            ("*", "10.0.0.1", true),
            ("example.com", "example.com", true),
            ("example.com", "api.example.com", true),
            ("example.com", "a.b.example.com", true),
            ("example.com", "badexample.com", false),
            ("example.com", "example.com.evil", false),
            ("example.com", "com", false),
            ("EXAMPLE.com.", "api.example.com", true),
            (".example.com", "example.com", true),
            (".example.com", "api.example.com", true),
            (".example.com", "badexample.com", false),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "example.com", false),
            ("a.example, example.com", "api.example.com", true),
            (" a.example\texample.com ,", "api.example.com", true),
            ("a.example,,b.example", "b.example", true),
            ("com", "api.example.com", true),
        ];
        for (list, host, want) in cases {
            let (list_of, faulty) = NoProxy::read(list);
            assert_eq!((list_of.takes(host, 443), faulty.as_slice()), (want, &[][..]), "{list:?} {host}");
        }
    }

    #[test]
    fn an_entry_may_be_an_address_a_range_or_for_one_port() {
        let cases = [
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1", "10.0.0.11", 443, false),
            ("10.0.0.1", "10.0.0.1.example.com", 443, false),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("10.1.2.3/8", "10.9.9.9", 443, true),
            ("10.0.0.0/8", "ten.example.com", 443, false),
            ("192.168.1.128/25", "192.168.1.127", 443, false),
            ("192.168.1.128/25", "192.168.1.129", 443, true),
            ("0.0.0.0/0", "8.8.8.8", 443, true),
            ("0.0.0.0/0", "2001:db8::1", 443, false),
            ("10.0.0.1/32", "10.0.0.1", 443, true),
            ("10.0.0.1/32", "10.0.0.0", 443, false),
            ("2001:db8::1", "2001:db8::1", 443, true),
            ("[2001:db8::1]", "2001:db8::1", 443, true),
            ("[2001:DB8:0::1]:443", "2001:db8::1", 443, true),
            ("[2001:db8::1]:443", "2001:db8::1", 444, false),
            ("2001:db8::/32", "2001:db8:ffff::1", 443, true),
            ("2001:db8::/32", "2001:db9::1", 443, false),
            ("::/0", "2001:db8::1", 443, true),
            ("::/0", "10.0.0.1", 443, false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", 443, true),
            ("example.com:8443", "api.example.com", 8443, true),
            ("example.com:8443", "api.example.com", 443, false),
            ("10.0.0.1:80", "10.0.0.1", 80, true),
            ("10.0.0.1:80", "10.0.0.1", 443, false),
            ("*:80", "api.example.com", 80, true),
            ("*:80", "api.example.com", 443, false),
        ];
        for (list, host, port, want) in cases {
            let (list_of, faulty) = NoProxy::read(list);
            assert_eq!(
                (list_of.takes(host, port), faulty.as_slice()),
                (want, &[][..]),
                "{list} {host}:{port}"
            );
        }
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_told_by_its_place_and_takes_nothing() {
        let (list, faulty) =
            NoProxy::read("10.0.0.0/33, a.example, http://b.example,c.example:x d..e,[::1, ok.example");
        assert_eq!(faulty, [1, 3, 4, 5, 6]);
        for host in ["10.0.0.1", "b.example", "c.example", "d..e"] {
            assert!(!list.takes(host, 443), "{host}");
        }
        assert!(list.takes("a.example", 443) && list.takes("ok.example", 443));
    }
}
