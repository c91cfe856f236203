//! Which addresses are not public: those that a sandbox may never reach, and to which no redirect may lead the
//! server.
//!
//! Pure except for [`is_own`], which asks the kernel. It must not know names, ports or rooms. Called for every
//! address to which a name resolves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use reqwest::Url;

/// Returns why `address` may not be reached ("a private address"), or `None` when it is a public one.
///
/// Documentation ranges pass: they lead nowhere by themselves, and some networks give them to their mirrors.
pub(crate) fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an address of \"this network\"",
        [127, ..] => "a loopback address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "a carrier's shared address",
        [169, 254, 169, 254] | [168, 63, 129, 16] => "a cloud's metadata address",
        [169, 254, ..] => "a link-local address",
        // Among these is 192.0.0.192, a cloud's metadata address.
        [192, 0, 0, _] => "a protocol's own address",
        [192, 88, 99, _] => "a 6to4 relay",
        [198, 18 | 19, ..] => "a benchmarking address",
        [224..=239, ..] => "a multicast address",
        [255, 255, 255, 255] => "the broadcast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    Some(match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => "the unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => "an IPv4 address in IPv6 clothes",
        // DNS64 gives this form to every IPv4-only host, so the address inside decides.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return refusal_v4(v4(high, low)),
        [0x64, 0xff9b, ..] => "a local NAT64 address",
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254] => "a cloud's metadata address",
        [0xfc00..=0xfdff, ..] => "a private address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0, ..] => "a Teredo address",
        [0x2001, 0x0001..=0x01ff, ..] => "a protocol's own address",
        [0x2002, ..] => "a 6to4 address",
        [0x2000..=0x3fff, ..] => return None,
        _ => "a reserved address",
    })
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

/// Returns whether `address` is this machine's own: one of an interface, or one that the kernel routes to itself.
pub(crate) fn is_own(address: IpAddr) -> bool {
    let plain = match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            IpAddr::V4(v4(v6.segments()[6], v6.segments()[7]))
        }
        other => other.to_canonical(),
    };
    // If the interfaces cannot be read, every address counts as own: the other checks do not know this machine's
    // public addresses.
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return true };
    let listed = interfaces.filter_map(|interface| interface.address).any(|own| {
        let v4 = own.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
        let v6 = own.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip()));
        v4.or(v6) == Some(plain)
    });
    listed || routes_to_itself(plain)
}

/// Returns whether requests to `url` can be read on the way: over plain HTTP, and not to this machine. A name other
/// than `localhost` may lead anywhere.
pub(crate) fn is_plain(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback() || is_own(address));
    url.scheme() == "http" && !local
}

/// Asks the kernel for the source address of a connection: for a destination on this machine it is the destination
/// itself, or loopback. Connecting a datagram socket sends nothing.
fn routes_to_itself(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = || -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    probe().is_ok_and(|source| source.ip() == address || source.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn plain_is_what_others_can_read_on_the_way() {
        let plain = |text: &str| is_plain(&Url::parse(text).unwrap());
        for text in
            ["http://203.0.113.7:8008", "http://matrix.example.org", "http://[2001:db8::7]:8008", "http://10.0.0.1/"]
        {
            assert!(plain(text), "{text}");
        }
        for text in ["https://203.0.113.7", "http://127.0.0.1:8008", "http://localhost:8008", "http://[::1]:8008"] {
            assert!(!plain(text), "{text}");
        }
        // An address of one of this machine's interfaces, if it has one besides loopback.
        let interfaces = nix::ifaddrs::getifaddrs().unwrap();
        for own in interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip())) {
            assert!(!plain(&format!("http://{own}:8008")), "{own}");
        }
    }

    #[test]
    fn refused_ranges_are_refused_to_their_edges() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.192",
            "192.0.0.255",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
            "::",
            "::1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3ffe:8000::".replace("3ffe", "5f00").as_str(),
            "4000::",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(refusal(at(text)).is_some(), "{text}");
        }
    }

    #[test]
    fn public_and_documentation_addresses_pass() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.2.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.100.7",
            "203.0.113.9",
            "223.255.255.255",
            "2001:200::1",
            "2001:db8::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "3fff::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert_eq!(refusal(at(text)), None, "{text}");
        }
    }

    #[test]
    fn own_addresses_are_known() {
        assert!(is_own(at("127.0.0.1")));
        assert!(is_own(at("127.8.8.8")), "routed to itself without being on an interface");
        assert!(is_own(at("64:ff9b::127.0.0.1")));
        assert!(!is_own(at("203.0.113.77")));
    }

    /// Computes the same as `refusal_v4` in another way, from prefixes.
    fn refused_by_prefix(address: Ipv4Addr) -> bool {
        let bits = u32::from(address);
        [
            ("0.0.0.0", 8),
            ("10.0.0.0", 8),
            ("100.64.0.0", 10),
            ("127.0.0.0", 8),
            ("168.63.129.16", 32),
            ("169.254.0.0", 16),
            ("172.16.0.0", 12),
            ("192.0.0.0", 24),
            ("192.88.99.0", 24),
            ("192.168.0.0", 16),
            ("198.18.0.0", 15),
            ("224.0.0.0", 3),
        ]
        .iter()
        .any(|(net, length)| {
            let net: Ipv4Addr = net.parse().unwrap();
            bits >> (32 - length) == u32::from(net) >> (32 - length)
        })
    }

    proptest! {
        #[test]
        fn ipv4_agrees_with_the_prefixes(bits: u32) {
            let address = Ipv4Addr::from(bits);
            prop_assert_eq!(refusal_v4(address).is_some(), refused_by_prefix(address));
        }

        #[test]
        fn no_dress_makes_a_refused_ipv4_pass(bits: u32, suffix: u64) {
            let address = Ipv4Addr::from(bits);
            let inner = u128::from(bits);
            let nat64 = Ipv6Addr::from((0x0064_ff9b_u128 << 96) | inner);
            prop_assert_eq!(refusal(nat64.into()).is_some(), refused_by_prefix(address));
            for dressed in [
                address.to_ipv6_mapped(),
                address.to_ipv6_compatible(),
                Ipv6Addr::from((0x2002_u128 << 112) | (inner << 80) | u128::from(suffix)),
                Ipv6Addr::from((0x2001_0000_u128 << 96) | (u128::from(suffix) << 32) | (inner ^ 0xffff_ffff)),
                Ipv6Addr::from((0x0064_ff9b_0001_u128 << 80) | inner),
            ] {
                prop_assert!(refusal(dressed.into()).is_some(), "{}", dressed);
            }
        }

        #[test]
        fn ipv6_outside_global_unicast_is_refused(bits: u128) {
            let address = Ipv6Addr::from(bits);
            if !(0x2000..=0x3fff).contains(&address.segments()[0]) && address.segments()[..2] != [0x64, 0xff9b] {
                prop_assert!(refusal(address.into()).is_some());
            }
        }
    }
}
