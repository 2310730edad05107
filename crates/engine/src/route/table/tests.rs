use super::*;
use crate::route::{RingKind, StoreAddress};

fn stores() -> Vec<StoreSpec> {
    let addresses = |hosts: &[&str]| {
        hosts.iter().map(|host| StoreAddress { host: (*host).into(), port: 2003, instance: None }).collect()
    };
    let store = |name: &str, hosts: &[&str], replicas| StoreSpec {
        name: name.into(),
        addresses: addresses(hosts),
        ring: RingKind::CarbonCh,
        replicas,
    };
    vec![
        store("one", &["10.0.0.1"], 1),
        store("many", &["10.0.0.1", "10.0.0.2", "10.0.0.3"], 1),
        store("twice", &["10.0.0.1", "10.0.0.2", "10.0.0.3"], 2),
    ]
}

const ONE: Target = Target::Store(0);
const MANY: Target = Target::Store(1);
const TWICE: Target = Target::Store(2);

fn glob(glob: &str, to: &[Target]) -> RouteSpec {
    RouteSpec { selector: Selector::Glob(glob.into()), to: to.to_vec(), stop: false }
}

fn regex(regex: &str, to: &[Target]) -> RouteSpec {
    RouteSpec { selector: Selector::Regex(regex.into()), to: to.to_vec(), stop: false }
}

fn stop(route: RouteSpec) -> RouteSpec {
    RouteSpec { stop: true, ..route }
}

fn compiled(routes: &[RouteSpec]) -> RouteTable {
    RouteTable::compile(routes, &stores()).expect("the routes compile")
}

/// What each name is owed to, with the routes that it takes.
#[track_caller]
fn check(routes: &[RouteSpec], cases: &[(&str, &[usize], Decision)]) {
    let table = compiled(routes);
    for (name, taken, decision) in cases {
        assert_eq!(table.explain(name.as_bytes()), *taken, "routes of {name}");
        assert_eq!(table.decide(name.as_bytes()), *decision, "{name}");
    }
}

fn owed(aggregate: bool, addresses: &[(usize, usize)]) -> Decision {
    Decision { aggregate, addresses: addresses.to_vec(), unrouted: None }
}

fn nobody(why: Unrouted) -> Decision {
    Decision { unrouted: Some(why), ..Decision::default() }
}

#[test]
fn a_series_takes_every_route_that_it_matches() {
    check(
        &[glob("f*", &[Target::Aggregate]), regex("o|=", &[ONE]), glob("{foo,a}", &[TWICE])],
        &[
            ("fx", &[0], owed(true, &[])),
            // Addresses as in the vectors of `ring`: two copies of `foo` are on the third and the first, of `a` on the
            // second and the third.
            ("foo", &[0, 1, 2], owed(true, &[(0, 0), (2, 2), (2, 0)])),
            ("a", &[2], owed(false, &[(2, 1), (2, 2)])),
            ("b;k=v", &[1], owed(false, &[(0, 0)])),
            ("b", &[], nobody(Unrouted::NoRoute)),
        ],
    );
}

#[test]
fn a_route_that_says_stop_is_the_last_for_its_series() {
    check(
        &[glob("a.**", &[Target::Aggregate]), stop(glob("**.b", &[ONE])), glob("**", &[MANY])],
        &[
            ("a.b", &[0, 1], owed(true, &[(0, 0)])),
            ("foo", &[2], owed(false, &[(1, 2)])),
            ("a.foo", &[0, 2], owed(true, &[(1, 0)])),
        ],
    );
}

#[test]
fn a_dropped_series_goes_nowhere_else_but_keeps_what_it_was_given() {
    check(
        &[glob("*.keep", &[ONE]), regex(r"^secret\.", &[Target::Drop]), glob("**", &[Target::Aggregate])],
        &[
            ("secret.x", &[1], nobody(Unrouted::Rule)),
            ("secret.keep", &[0, 1], owed(false, &[(0, 0)])),
            ("public.x", &[2], owed(true, &[])),
        ],
    );
}

#[test]
fn no_address_is_owed_a_series_twice() {
    check(&[glob("**", &[ONE, ONE]), glob("a", &[ONE, Target::Aggregate])], &[("a", &[0, 1], owed(true, &[(0, 0)]))]);
}

#[test]
fn without_routes_there_is_no_route() {
    check(&[], &[("a", &[], nobody(Unrouted::NoRoute))]);
}

#[track_caller]
fn check_errors(routes: &[RouteSpec], expected: &[(usize, &str)]) {
    let errors = RouteTable::compile(routes, &stores()).expect_err("the routes are wrong");
    let places: Vec<usize> = errors.iter().map(|error| error.route).collect();
    assert_eq!(places, expected.iter().map(|(route, _)| *route).collect::<Vec<_>>(), "{errors:?}");
    for (error, (_, text)) in errors.iter().zip(expected) {
        assert!(error.message.contains(text), "{error} says nothing of `{text}`");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    check_errors(
        &[glob("a", &[]), regex("(", &[ONE]), glob("{", &[Target::Store(7)])],
        &[(0, "leads nowhere"), (1, "unclosed"), (2, "`{`"), (2, "store number 7")],
    );
}

#[test]
fn a_route_behind_one_that_takes_all_is_an_error() {
    for all in [glob("**", &[ONE]), glob("**.**", &[ONE]), regex(".*", &[ONE]), regex("", &[ONE])] {
        check_errors(&[stop(all), glob("a", &[ONE]), glob("b", &[ONE])], &[(1, "never reached"), (2, "never reached")]);
    }
    check_errors(&[glob("**", &[Target::Drop]), glob("a", &[ONE])], &[(1, "route 0")]);
    check_errors(&[stop(glob("a.*", &[ONE])), glob("b", &[ONE]), glob("a.*", &[MANY])], &[(2, "route 0")]);
}

#[test]
fn a_store_that_makes_no_ring_is_told_once() {
    let mut stores = stores();
    stores[0].replicas = 2;
    let errors = RouteTable::compile(&[glob("a", &[ONE]), glob("b", &[ONE])], &stores).expect_err("store is wrong");
    assert_eq!(errors.iter().map(|error| error.route).collect::<Vec<_>>(), [0]);
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    assert!(compiled(&[glob("a", &[Target::Drop]), stop(glob("**", &[ONE]))]).warnings().is_empty());
    let warnings = compiled(&[glob("b", &[ONE]), glob("a", &[ONE, Target::Drop, MANY])]);
    assert_eq!(warnings.warnings().iter().map(|warning| warning.route).collect::<Vec<_>>(), [1]);

    let mut stores = stores();
    for address in &mut stores[2].addresses {
        address.instance = Some(std::mem::replace(&mut address.host, "localhost".into()));
    }
    let table = RouteTable::compile(&[glob("a", &[TWICE])], &stores).expect("compiles");
    assert!(table.warnings()[0].message.contains("1 of 2 replicas"), "{:?}", table.warnings());
}
