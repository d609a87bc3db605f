//! What a message table may not say, and that its reader tells the line.

#![allow(clippy::unwrap_used)]

mod tables;

use tables::schema::Table;

/// A table with a request of these lines, from line 3 on, and an empty response.
fn api(lines: &[&str]) -> String {
    format!("api 1 Some 0-4 flexible 2\nrequest\n{}\nresponse\n", lines.join("\n"))
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let refused = |text: &str| Table::parse("some.txt", text).map(|_| ()).unwrap_err().to_string();
    let cases = [
        (String::new(), "some.txt:1: the table is empty"),
        ("api x Some 0-4".to_owned(), "some.txt:1: `x` is no API key"),
        ("# head\napi 1 Some 4-0".to_owned(), "some.txt:2: versions 4-0 are empty"),
        (
            "api 1 Some 0-4 flexible 5".to_owned(),
            "some.txt:1: the first flexible version lies outside of 0-4",
        ),
        (
            "api 1 Some 0-4\nrequest\n".to_owned(),
            "some.txt:2: an API has a part `request` and then a part `response`",
        ),
        (api(&["  name"]), "some.txt:3: a field is `name type [versions] [null] [tag=N] [= default]`"),
        (api(&["  ok  i32", "  bad  int32"]), "some.txt:4: `int32` is no type"),
        (api(&["  Bad  i32"]), "some.txt:3: `Bad` is no name of a field"),
        (api(&["  bad  i32  5"]), "some.txt:3: versions 5 pass those around them, 0-4"),
        (
            api(&["  outer  []Inner  3+", "    bad  i32  2+"]),
            "some.txt:4: versions 2-4 pass those around them, 3-4",
        ),
        (api(&["  bad  i32  null"]), "some.txt:3: this type cannot be null"),
        (
            api(&["  bad  string  = null"]),
            "some.txt:3: only what may be null in each of its versions is null unless set",
        ),
        (api(&["  bad  i8  = 128"]), "some.txt:3: `128` is no value of this type"),
        (api(&["  bad  i8  = 0"]), "some.txt:3: zero needs no mention"),
        (api(&["  bad  uuid  = 1"]), "some.txt:3: `1` is no default of this type"),
        (api(&["  bad  i32  twice"]), "some.txt:3: `twice` is neither versions nor null nor a tag"),
        (api(&["  bad  i32  1+  tag=0"]), "some.txt:3: a tagged field needs flexible versions"),
        (api(&["  ok  i32  2+  tag=0", "  bad  i32  2+  tag=0"]), "some.txt:4: tag 0 stands here twice"),
        (api(&["  bad  i32", "  bad  i32"]), "some.txt:4: field bad stands here twice"),
        (api(&["  bad  Inner"]), "some.txt:3: struct Inner has no fields, here or above"),
        (api(&["  bad  i32", "    inner  i32"]), "some.txt:4: only a struct has fields within"),
        (api(&["    one  i32", "  two  i32"]), "some.txt:4: the indentation fits no struct around it"),
        (
            api(&["  one  Inner", "    x  i32", "  two  Inner  1+"]),
            "some.txt:5: struct Inner was told for versions 0-4, not 1-4",
        ),
        (
            api(&["  one  Inner", "    x  i32", "  two  Inner", "    x  i32"]),
            "some.txt:6: struct Inner has its fields already",
        ),
        (api(&["  bad  [][]i32"]), "some.txt:3: an array holds no arrays and no chunks"),
        (
            api(&["  bad  chunks  2+  tag=1"]),
            "some.txt:3: chunks cannot be tagged: their length would have to be known before they are",
        ),
        (
            api(&["  bad  []Inner  2+  tag=1", "    x  chunks"]),
            "some.txt:3: chunks cannot be tagged: their length would have to be known before they are",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(&text), expected, "{text}");
    }
}

#[test]
fn a_struct_can_be_used_again() {
    let text = api(&["  one  Inner  null = null", "    x  i32", "  more  []Inner  # again"]);
    let table = Table::parse("some.txt", &text).unwrap();
    assert_eq!(
        table.structs.iter().map(|part| &*part.name).collect::<Vec<_>>(),
        ["SomeRequest", "Inner", "SomeResponse"]
    );
}
