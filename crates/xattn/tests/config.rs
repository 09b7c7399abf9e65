//! Invalid configurations are rejected with the name of the option.

use pheye_xattn::Config;

/// An option, the rule in its error, and a change that makes it invalid.
type Fault = (&'static str, &'static str, fn(&mut Config));

#[test]
fn every_rule_names_its_option() {
    let faults: [Fault; 7] = [
        ("level", "1 to 4", |c| c.level = 0),
        ("level", "1 to 4", |c| c.level = 5),
        ("level", "1 to 4", |c| c.level = usize::MAX),
        ("cross_interval", "positive", |c| c.cross_interval = 0),
        ("reduce", "1, 2, 4 or 8", |c| c.reduce = 0),
        ("reduce", "1, 2, 4 or 8", |c| c.reduce = 3),
        ("reduce", "1, 2, 4 or 8", |c| c.reduce = 16),
    ];
    for (option, rule, spoil) in faults {
        let mut config = Config::default();
        spoil(&mut config);
        let error = config.validate(2048, 1280).unwrap_err();
        assert_eq!(error.option, option);
        assert!(error.to_string().contains(rule), "{error}");
    }
    for (text, vision) in [(0, 0), (48, 40), (64, 100)] {
        assert_eq!(Config::default().validate(text, vision).unwrap_err().option, "hidden_size");
    }
}

#[test]
fn widths_and_places_follow_the_paper() {
    for reduce in [1, 2, 4, 8] {
        let config = Config { reduce, ..Config::default() };
        config.validate(2048, 1280).unwrap();
        assert_eq!((config.heads(2048, 1280), config.inner(2048, 1280)), (32, 2048 / reduce));
    }
    let places = |cross_interval, from_layer| {
        let config = Config { cross_interval, from_layer, ..Config::default() };
        (0..8).filter(|&i| config.has_block(i)).collect::<Vec<_>>()
    };
    assert_eq!(places(2, 0), [1, 3, 5, 7]);
    assert_eq!(places(4, 4), [7]);
    assert_eq!(places(1, 6), [6, 7]);
    let tiles = [1, 2, 3, 4].map(|level| Config { level, ..Config::default() }.local_tiles());
    assert_eq!(tiles, [0, 4, 9, 16]);
}
