//! Addresses that no service of the network has: nothing goes there unless the configuration says so. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why nothing goes to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// Only on the same wire, without anybody having given it out (RFC 3927, RFC 4291 §2.5.6).
    LinkLocal,
    /// Where a cloud tells its machines about themselves, credentials included.
    Metadata,
    /// No single machine's: unspecified, multicast or broadcast (RFC 6890).
    NoMachine,
}

impl fmt::Display for Reserved {
    /// With its article.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the address of a cloud's metadata service",
            Self::NoMachine => "no machine's address",
        })
    }
}

/// AWS, Google, Azure, Oracle, Alibaba and others tell credentials at 169.254.169.254; these stand elsewhere.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    // Azure's wire server, Alibaba Cloud, Oracle Cloud Classic.
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 4] = [
    // AWS: instances, and the agent of EKS' pod identities; Google Cloud; Scaleway.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Pure. Why nothing goes to this address unless it is said; none: it may.
pub fn reserved(address: IpAddr) -> Option<Reserved> {
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address).or_else(|| embedded(address).into_iter().flatten().find_map(v4)),
    }
}

/// Pure. The same, where the configuration allows link-local addresses and those of metadata services.
pub fn reserved_unless(address: IpAddr, allow_link_local: bool) -> Option<Reserved> {
    reserved(address).filter(|why| !allow_link_local || *why == Reserved::NoMachine)
}

fn v4(address: Ipv4Addr) -> Option<Reserved> {
    if METADATA_V4.contains(&address) {
        Some(Reserved::Metadata)
    } else if address.is_link_local() {
        Some(Reserved::LinkLocal)
    } else if address.octets()[0] == 0 || address.is_multicast() || address.is_broadcast() {
        // A connection to 0.0.0.0 reaches this machine.
        Some(Reserved::NoMachine)
    } else {
        None
    }
}

fn v6(address: Ipv6Addr) -> Option<Reserved> {
    if METADATA_V6.contains(&address) {
        Some(Reserved::Metadata)
    } else if address.is_unicast_link_local() {
        Some(Reserved::LinkLocal)
    } else if address.is_unspecified() || address.is_multicast() {
        Some(Reserved::NoMachine)
    } else {
        None
    }
}

/// The IPv4 addresses that a gateway, a tunnel or the system itself may take an IPv6 address for.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let words = address.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    let last = of(words[6], words[7]);
    match words {
        // Itself, not the IPv4-compatible 0.0.0.1.
        [0, 0, 0, 0, 0, 0, 0, 1] => [None, None],
        // IPv4-compatible, IPv4-mapped (RFC 4291 §2.5.5) and IPv4-translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [last, None],
        // NAT64 (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [last, None],
        // NAT64 with a prefix of one's own (RFC 8215), which has 96 bits or 48 (RFC 6052 §2.2): where the one has the
        // address, the other has zeros.
        [0x64, 0xff9b, 1, ..] => [last, of(words[3], (words[4] << 8) | (words[5] >> 8))]
            .map(|found| found.filter(|address| v4(*address) != Some(Reserved::NoMachine))),
        // 6to4 (RFC 3056 §2), Teredo with the client's address inverted (RFC 4380 §4).
        [0x2002, high, low, ..] => [of(high, low), None],
        [0x2001, 0, ..] => [of(!words[6], !words[7]), None],
        // ISATAP (RFC 5214 §6.1).
        [.., 0 | 0x200, 0x5efe, _, _] => [last, None],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::Reserved::{LinkLocal, Metadata, NoMachine};
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_known_however_they_are_wrapped() {
        let cases = [
            ("169.254.0.1", Some(LinkLocal)),
            ("169.254.170.2", Some(LinkLocal)),
            ("169.254.169.254", Some(Metadata)),
            ("168.63.129.16", Some(Metadata)),
            ("100.100.100.200", Some(Metadata)),
            ("192.0.0.192", Some(Metadata)),
            ("0.0.0.0", Some(NoMachine)),
            ("0.1.2.3", Some(NoMachine)),
            ("224.0.0.1", Some(NoMachine)),
            ("255.255.255.255", Some(NoMachine)),
            ("fe80::1", Some(LinkLocal)),
            ("febf:ffff::1", Some(LinkLocal)),
            ("fe80::a9fe:a9fe", Some(LinkLocal)),
            ("fd00:ec2::254", Some(Metadata)),
            ("fd00:ec2::23", Some(Metadata)),
            ("fd20:ce::254", Some(Metadata)),
            ("fd00:42::42", Some(Metadata)),
            ("::", Some(NoMachine)),
            ("ff02::1", Some(NoMachine)),
            // IPv4 within IPv6.
            ("::ffff:169.254.169.254", Some(Metadata)),
            ("::ffff:0.0.0.0", Some(NoMachine)),
            ("::169.254.169.254", Some(Metadata)),
            ("::ffff:0:169.254.1.1", Some(LinkLocal)),
            ("64:ff9b::169.254.169.254", Some(Metadata)),
            ("64:ff9b:1::169.254.169.254", Some(Metadata)),
            ("64:ff9b:1:a9fe:a9:fe00::", Some(Metadata)),
            ("2002:a9fe:a9fe::1", Some(Metadata)),
            ("2001:0:1234::5601:5601", Some(Metadata)),
            ("2001:db8::5efe:169.254.169.254", Some(Metadata)),
            ("2001:db8::200:5efe:169.254.1.1", Some(LinkLocal)),
            // What others have, and what is next to it.
            ("127.0.0.1", None),
            ("10.0.0.1", None),
            ("169.253.255.255", None),
            ("169.255.0.0", None),
            ("168.63.129.17", None),
            ("100.64.0.1", None),
            ("192.0.2.1", None),
            ("223.255.255.255", None),
            ("240.0.0.1", None),
            ("::1", None),
            ("::ffff:127.0.0.1", None),
            ("::ffff:10.0.0.1", None),
            ("fec0::1", None),
            ("fd00:ec2::1", None),
            ("fd12:3456:789a::254", None),
            ("64:ff9b::10.0.0.1", None),
            ("64:ff9b:1::10.0.0.1", None),
            ("64:ff9b:1:a00:0:100::", None),
            ("64:ff9b:2::169.254.169.254", None),
            ("2001:db8::a9fe:a9fe", None),
            ("2001:4860:4860::8888", None),
            ("2002:a00:1::1", None),
        ];
        for (text, want) in cases {
            assert_eq!(reserved(text.parse().unwrap()), want, "{text}");
        }
    }

    #[test]
    fn leave_is_for_link_local_and_metadata_addresses_alone() {
        for (text, want) in [
            ("169.254.169.254", None),
            ("fe80::1", None),
            ("0.0.0.0", Some(NoMachine)),
            ("ff02::1", Some(NoMachine)),
        ] {
            assert_eq!(reserved_unless(text.parse().unwrap(), true), want, "{text}");
            assert!(reserved_unless(text.parse().unwrap(), false).is_some(), "{text}");
        }
    }
}
