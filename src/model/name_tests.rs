use super::*;

#[test]
fn names_of_every_script_with_spaces_and_symbols_are_valid() {
    for good in [
        "a",
        "constructor",
        "__proto__",
        " leading and trailing ",
        "ü 你 {x}*",
        "Жук",
        "שלום",
        "محمد",
        "أبو ١٢٣",
        // A zero width non-joiner where Persian writes one, and a joiner after a virama.
        "می\u{200c}خواهم",
        "क्\u{200d}ष",
        "ಕನ್ನಡ",
        "ไทย",
        "한국어",
        "ひらがな・カタカナ",
        "l·l",
        "Ⅻ №1 ｆｕｌｌ",
        "e\u{301}te\u{301}",
        "a\u{2800}b",
        "◌́",
        "😀",
        // Younger than the tables of PRECIS: an emoji, Adlam, Osage, a rupee of 2010 and a bitcoin of 2017.
        "🤔",
        "🪿",
        "𞤀𞤣𞤤𞤢𞤥",
        "𐓏𐓘𐓻𐓘𐓻𐓟",
        "₹ ₿",
        &"x".repeat(128),
        &"ü".repeat(64),
    ] {
        assert!(
            UserName::parse(good).is_ok(),
            "{good:?}: {:?}",
            UserName::parse(good)
        );
    }
}

/// Characters that leave no mark, or none of their own.
const UNSEEN: &[char] = &[
    // Controls.
    '\0',
    '\t',
    '\n',
    '\r',
    '\u{1b}',
    '\u{7f}',
    '\u{85}',
    '\u{9f}',
    // Bidi: marks, embeddings, overrides, isolates.
    '\u{61c}',
    '\u{200e}',
    '\u{200f}',
    '\u{202a}',
    '\u{202b}',
    '\u{202c}',
    '\u{202d}',
    '\u{202e}',
    '\u{2066}',
    '\u{2067}',
    '\u{2068}',
    '\u{2069}',
    // Zero width, joiners beside letters that do not join, BOM.
    '\u{200b}',
    '\u{200c}',
    '\u{200d}',
    '\u{2060}',
    '\u{feff}',
    // Default-ignorable: hyphen, joiner, fillers, invisible operators, selectors, tags, shorthand.
    '\u{ad}',
    '\u{34f}',
    '\u{115f}',
    '\u{1160}',
    '\u{3164}',
    '\u{ffa0}',
    '\u{17b4}',
    '\u{180b}',
    '\u{180e}',
    '\u{180f}',
    '\u{2061}',
    '\u{2064}',
    '\u{2065}',
    '\u{206a}',
    '\u{206f}',
    '\u{fe0f}',
    '\u{e0001}',
    '\u{e0061}',
    '\u{e0100}',
    '\u{1bca0}',
    '\u{1d173}',
    '\u{13430}',
    '\u{1343f}',
    // Separators, annotation, private use, noncharacters, unassigned.
    '\u{2028}',
    '\u{2029}',
    '\u{fff9}',
    '\u{e000}',
    '\u{fdd0}',
    '\u{ffff}',
    '\u{10ffff}',
    '\u{378}',
    // Conjoining jamo, and a middle dot outside Catalan.
    '\u{1100}',
    '·',
];

#[test]
fn what_nobody_sees_is_not_part_of_a_name_and_is_named() {
    for &bad in UNSEEN {
        for name in [
            format!("a{bad}b"),
            format!("{bad}ab"),
            format!("ab{bad}"),
            format!("你{bad}好"),
            bad.to_string(),
        ] {
            let refused = UserName::parse(&name).unwrap_err();
            assert_eq!(refused, InvalidName::Character(bad), "{name:?}");
            let code = format!("U+{:04X}", u32::from(bad));
            assert!(refused.to_string().contains(&code), "{refused}");
        }
    }
}

#[test]
fn a_name_has_a_visible_character() {
    for blank in [
        " ",
        "    ",
        "\u{a0}",
        "\u{2003}\u{3000}",
        "\u{1680}",
        "\u{2800}",
        " \u{2800} ",
        "\u{1d159}",
        "\u{13441}",
        " \u{301}",
    ] {
        assert_eq!(
            UserName::parse(blank),
            Err(InvalidName::Invisible),
            "{blank:?}"
        );
    }
}

#[test]
fn no_mark_comes_first() {
    for mark in [
        '\u{301}',
        '\u{489}',
        '\u{903}',
        '\u{20e3}',
        '\u{1e944}',
        '\u{1df5}',
    ] {
        let name = format!("{mark}a");
        assert_eq!(
            UserName::parse(&name),
            Err(InvalidName::MarkFirst(mark)),
            "{mark:?}"
        );
        assert!(UserName::parse(&format!("a{mark}")).is_ok(), "{mark:?}");
    }
}

#[test]
fn names_have_1_to_128_bytes() {
    for bad in ["", &"x".repeat(129), &"ü".repeat(65)] {
        assert_eq!(UserName::parse(bad), Err(InvalidName::Length), "{bad:?}");
        assert!(UserName::known(bad).is_err(), "{bad:?}");
    }
    assert!(UserName::known("\u{202e}").is_ok(), "another node decides");
}
