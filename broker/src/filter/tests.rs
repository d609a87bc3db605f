//! A table of expressions, and what holds for all of them.

use floodmark_proto::batch::{BatchBuilder, DecompressLimits, NewRecord, RecordBatch};
use floodmark_proto::ids::Offset;
use proptest::prelude::*;

use super::*;

const NOON: i64 = 1_767_268_800_000;

fn batch(records: &[NewRecord<'_>], base: i64) -> RecordBatch {
    let mut builder = BatchBuilder::new().base_offset(Offset(base));
    for record in records {
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}

fn chosen(filter: &Filter, batch: &RecordBatch) -> Vec<i64> {
    let mut scratch = Vec::new();
    let records = batch.records(&DecompressLimits::DEFAULT, &mut scratch).unwrap();
    records
        .map(Result::unwrap)
        .filter(|record| filter.matches(record))
        .map(|record| record.offset.0)
        .collect()
}

/// Offset 100: everything set; 101: key null, type twice; 102: value null, empty header; 103: bytes that are no text.
fn records() -> RecordBatch {
    let typed: [(&[u8], Option<&[u8]>); 2] = [(b"type", Some(b"x")), (b"note", None)];
    let twice: [(&[u8], Option<&[u8]>); 2] = [(b"type", Some(b"y")), (b"type", Some(b"z"))];
    let empty: [(&[u8], Option<&[u8]>); 1] = [(b"type", Some(b""))];
    batch(
        &[
            NewRecord { timestamp: NOON, key: Some(b"order-1"), value: Some(b"hello"), headers: &typed },
            NewRecord { timestamp: NOON + 1, key: None, value: Some(b"say \"hi\""), headers: &twice },
            NewRecord { timestamp: NOON - 1, key: Some(b"order-2"), value: None, headers: &empty },
            NewRecord { timestamp: NOON, key: Some(b"\xff\x00"), value: Some(b""), headers: &[] },
        ],
        100,
    )
}

#[test]
fn expressions_choose_what_they_say() {
    let batch = records();
    for (expression, expected) in [
        ("true", &[100, 101, 102, 103][..]),
        ("false", &[]),
        (r#"key == "order-1""#, &[100]),
        (r#"key != "order-1""#, &[101, 102, 103]),
        (r#"key startsWith "order-""#, &[100, 102]),
        (r#"key endsWith "2""#, &[102]),
        (r#"!(key startsWith "order-")"#, &[101, 103]),
        ("key == null", &[101]),
        ("key != null && value != null", &[100, 103]),
        (r#"key == hex"ff00""#, &[103]),
        (r#"key >= "order-2""#, &[102, 103]),
        (r#"key < "order-2""#, &[100]),
        (r#"value contains "\"hi\"""#, &[101]),
        (r#"value contains """#, &[100, 101, 103]),
        (r#"header("type") == "x""#, &[100]),
        // The last of several, as Kafka's clients have it.
        (r#"header("type") == "z""#, &[101]),
        (r#"header("type") == "y""#, &[]),
        (r#"header("type") in ["x", "z"]"#, &[100, 101]),
        (r#"header("none") == null"#, &[100, 101, 102, 103]),
        (r#"header("note") == null && has("note")"#, &[100]),
        (r#"has("type") && header("type").size == 0"#, &[102]),
        ("offset > 100 && offset <= 102", &[101, 102]),
        ("offset % 2 == 0", &[100, 102]),
        ("offset in [103, 7, 100]", &[100, 103]),
        ("offset % 100 in [1,3]", &[101, 103]),
        ("offset == -1 || offset % -2 == 1", &[101, 103]),
        ("timestamp >= 2026-01-01T12:00:00Z", &[100, 101, 103]),
        ("timestamp > 2026-01-01T12:00:00.000Z", &[101]),
        ("timestamp < 2026-01-02 && timestamp >= 2026-01-01", &[100, 101, 102, 103]),
        ("value.size > 4", &[100, 101]),
        ("value.size == 0", &[102, 103]),
        ("key.size == 7", &[100, 102]),
        (r#"key=="order-1"||key=="order-2"&&value==null"#, &[100, 102]),
        (r#"(key == "order-1" || value == null) && value == null"#, &[102]),
        ("!!!(offset == 100) && !(offset == 101 || offset == 102)", &[103]),
        ("\n offset\t==\r\n100 ", &[100]),
    ] {
        let filter = Filter::compile(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
        assert_eq!(chosen(&filter, &batch), expected, "{expression}");
        assert!(filter.may_match(batch.header()) || expected.is_empty(), "{expression}");
    }
}

#[test]
fn what_is_no_expression_is_told_with_its_place() {
    for (expression, at, told) in [
        ("", 0, "here stands key, value"),
        ("  ", 2, "here stands key, value"),
        ("key", 3, "here stands ==, !="),
        ("key ==", 6, "a text in quotation marks, or null"),
        ("key == 1", 7, "a text in quotation marks, or null"),
        ("key < null", 10, "neither less nor greater"),
        (r#"offset == "1""#, 10, "a number or a time"),
        ("offset startsWith 1", 7, "here stands ==, !=, <, <=, >, >= or in"),
        ("offset == 1 offset == 2", 12, "&& or || is missing"),
        ("offset == 1 &&", 14, "here stands key, value"),
        ("(offset == 1", 12, r#"here stands ")""#),
        (r#"key == "open"#, 7, "a quotation mark is missing"),
        (r#"key == "\q""#, 8, "after a backslash"),
        (r#"key == hex"abc""#, 7, "pairs of hexadecimal digits"),
        (r#"key == hex"zz""#, 7, "pairs of hexadecimal digits"),
        ("offset % 0 == 1", 9, "divided by 0"),
        ("offset == 99999999999999999999", 10, "more than 64 bits"),
        ("timestamp > 2026-02-29", 12, "is no number and no time"),
        ("timestamp > 2026-01-01T24:00:00Z", 12, "is no number and no time"),
        ("timestamp > 2026-01-01T12:00:00", 12, "is no number and no time"),
        ("topic == \"a\"", 0, "there is no \"topic\""),
        ("key.length == 1", 4, "after a dot comes size"),
        ("key like \"a\"", 4, "startsWith, endsWith or contains"),
        ("header(type) == null", 7, "the name of a header"),
        ("offset in []", 11, "a number or a time"),
        ("offset # 1", 7, "means nothing here"),
        ("key == \"é\" ∧ true", 12, "means nothing here"),
    ] {
        let error = Filter::compile(expression).unwrap_err();
        assert!(error.message.contains(told), "{expression}: {error}");
        assert_eq!(error.at, at, "{expression}: {error}");
    }
}

#[test]
fn size_depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::compile(&nested(DEPTH_MAX - 1)).is_ok());
    let error = Filter::compile(&nested(DEPTH_MAX)).unwrap_err();
    assert!(error.message.contains("nested more than 32 deep"), "{error}");
    assert!(Filter::compile(&format!("{}true", "!".repeat(4000))).is_err());
    let joined = |count: usize| vec!["true"; count].join("||");
    assert!(Filter::compile(&joined(TESTS_MAX)).is_ok());
    let error = Filter::compile(&joined(TESTS_MAX + 1)).unwrap_err();
    assert!(error.message.contains("100 comparisons at most"), "{error}");
    let long = format!("key == \"{}\"", "x".repeat(EXPRESSION_BYTES_MAX));
    assert!(Filter::compile(&long).unwrap_err().message.contains("4096 bytes at most"));
}

#[test]
fn times_are_those_of_the_calendar() {
    for (text, ms) in [
        ("1970-01-01", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2000-02-29T00:00:00.5Z", 951_782_400_500),
        ("2026-01-01T12:00:00Z", NOON),
        ("9999-12-31T23:59:59.99Z", 253_402_300_799_990),
        ("0001-01-01", -62_135_596_800_000),
    ] {
        let batch = batch(&[NewRecord { timestamp: ms, ..NewRecord::default() }], 0);
        let filter = Filter::compile(&format!("timestamp == {text}")).unwrap();
        assert_eq!(chosen(&filter, &batch), [0], "{text}");
    }
}

#[test]
fn batches_are_passed_over_by_what_their_headers_say() {
    let plain = records();
    let mut timed = records();
    timed.set_log_append_time(NOON);
    for (expression, of_plain, of_timed) in [
        ("offset < 100", false, false),
        ("offset <= 100", true, true),
        ("offset > 103 || offset in [99, 104]", false, false),
        ("!(offset >= 100 && offset <= 103)", false, false),
        ("offset == 101 && offset == 102", true, true),
        ("offset >= 104 || key == \"a\"", true, true),
        ("offset >= 104 && key == \"a\"", false, false),
        ("timestamp < 2026-01-01", true, false),
        ("timestamp == 2026-01-01T12:00:00Z", true, true),
        ("offset % 2 == 5", true, true),
        ("false", false, false),
    ] {
        let filter = Filter::compile(expression).unwrap();
        assert_eq!(filter.may_match(plain.header()), of_plain, "{expression}");
        assert_eq!(filter.may_match(timed.header()), of_timed, "{expression}");
    }
}

/// Words of the language in any order, which get further than random text does.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "key",
        "value",
        "header(\"a\")",
        "has(\"a\")",
        "offset",
        "timestamp",
        ".size",
        "% 3",
        "==",
        "!=",
        "<",
        ">=",
        "in",
        "[1, 2]",
        "[\"a\"]",
        "(",
        ")",
        "&&",
        "||",
        "!",
        "null",
        "true",
        "1",
        "-5",
        "\"a\"",
        "hex\"00\"",
        "startsWith",
        "contains",
        "2026-01-01",
        "\u{e9}",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

/// Expressions, with what each is of an offset.
fn expression() -> impl Strategy<Value = (String, Vec<bool>)> {
    let leaf = (0..6_i64, 0..6_usize).prop_map(|(n, op)| {
        let signs = ["==", "!=", "<", "<=", ">", ">="];
        let of =
            |offset: i64| [offset == n, offset != n, offset < n, offset <= n, offset > n, offset >= n][op];
        (format!("offset {} {n}", signs[op]), (0..6).map(of).collect::<Vec<_>>())
    });
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(text, of)| (format!("!({text})"), of.iter().map(|v| !v).collect())),
            (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| {
                (format!("({a}) && ({b})"), x.iter().zip(&y).map(|(x, y)| *x && *y).collect())
            }),
            (inner.clone(), inner).prop_map(|((a, x), (b, y))| {
                (format!("({a}) || ({b})"), x.iter().zip(&y).map(|(x, y)| *x || *y).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_compiles_or_does_not(text in ".{0,200}") {
        if let Ok(filter) = Filter::compile(&text) {
            chosen(&filter, &records());
        }
    }

    #[test]
    fn any_words_compile_or_do_not(text in words()) {
        if let Ok(filter) = Filter::compile(&text) {
            let batch = records();
            prop_assert!(filter.may_match(batch.header()) || chosen(&filter, &batch).is_empty());
        }
    }

    #[test]
    fn logic_is_logic_and_no_batch_is_passed_over_that_has_a_match((text, of) in expression(), base in 0..6_i64) {
        prop_assume!(text.len() <= EXPRESSION_BYTES_MAX);
        let filter = match Filter::compile(&text) {
            Ok(filter) => filter,
            Err(e) => {
                prop_assert!(e.message.contains("deep"), "{text}: {e}");
                return Ok(());
            }
        };
        let all = batch(&[NewRecord::default(); 6], 0);
        let expected: Vec<i64> = (0..6).filter(|offset| of[*offset as usize]).collect();
        prop_assert_eq!(&chosen(&filter, &all), &expected);
        let one = batch(&[NewRecord::default()], base);
        prop_assert_eq!(filter.may_match(one.header()), of[base as usize]);
        prop_assert!(filter.may_match(all.header()) || expected.is_empty());
    }
}
