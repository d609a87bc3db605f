//! Words to a program. Nesting is bounded, so that no expression can use up the stack.

use memchr::memmem::Finder;

use super::program::{Program, Step};
use super::test::{Compare, Modulus, Number, Test, Text};
use super::token::Token;
use super::{DEPTH_MAX, FilterError, TESTS_MAX};

/// What stands on the left of a comparison.
const SUBJECTS: &str = "key, value, header(\"…\"), offset, timestamp, key.size, value.size or has(\"…\")";

/// The program of an expression whose text has `end` bytes.
pub(super) fn parse(tokens: Vec<(usize, Token)>, end: usize) -> Result<Program, FilterError> {
    let mut parser = Parser { tokens, at: 0, end, steps: Vec::new(), test_count: 0 };
    parser.any_of(0)?;
    match parser.tokens.get(parser.at) {
        None => Ok(Program(parser.steps)),
        Some((at, _)) => {
            Err(FilterError::new(*at, "the expression is over before this; && or || is missing"))
        }
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
    steps: Vec<Step>,
    test_count: usize,
}

/// The left side of a comparison.
enum Subject {
    Text(Text),
    Number(Number, Option<Modulus>),
}

impl Parser {
    fn any_of(&mut self, depth: usize) -> Result<(), FilterError> {
        self.joined("||", true, depth, Parser::all_of)
    }

    fn all_of(&mut self, depth: usize) -> Result<(), FilterError> {
        self.joined("&&", false, depth, Parser::unary)
    }

    /// Parts joined by `sign`; the first that gives `decides` decides, and the rest is passed over.
    fn joined(
        &mut self,
        sign: &str,
        decides: bool,
        depth: usize,
        part: fn(&mut Parser, usize) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        part(self, depth)?;
        let mut jumps = Vec::new();
        while self.takes(sign) {
            jumps.push(self.steps.len());
            self.steps.push(Step::JumpIf(decides, 0));
            part(self, depth)?;
        }
        let end = self.steps.len();
        for jump in jumps {
            self.steps[jump] = Step::JumpIf(decides, end);
        }
        Ok(())
    }

    fn unary(&mut self, depth: usize) -> Result<(), FilterError> {
        if depth >= DEPTH_MAX {
            return Err(self.wrong(format!("it is nested more than {DEPTH_MAX} deep")));
        }
        if self.takes("!") {
            self.unary(depth + 1)?;
            self.steps.push(Step::Not);
            return Ok(());
        }
        if self.takes("(") {
            self.any_of(depth + 1)?;
            return self.needs(")");
        }
        self.test_count += 1;
        if self.test_count > TESTS_MAX {
            return Err(self.wrong(format!("an expression has {TESTS_MAX} comparisons at most")));
        }
        let test = self.test()?;
        self.steps.push(Step::Test(test));
        Ok(())
    }

    fn test(&mut self) -> Result<Test, FilterError> {
        let at = self.place();
        let Some(name) = self.name() else {
            return Err(self.wrong(format!("here stands {SUBJECTS}")));
        };
        let subject = match &*name {
            "true" => return Ok(Test::Constant(true)),
            "false" => return Ok(Test::Constant(false)),
            "has" => return Ok(Test::HasHeader(self.argument()?)),
            "key" => self.sized(Text::Key)?,
            "value" => self.sized(Text::Value)?,
            "header" => {
                let name = self.argument()?;
                self.sized(Text::Header(name))?
            }
            "offset" => Subject::Number(Number::Offset, self.modulus()?),
            "timestamp" => Subject::Number(Number::Timestamp, self.modulus()?),
            other => {
                return Err(FilterError::new(at, format!("there is no {other:?}; here stands {SUBJECTS}")));
            }
        };
        match subject {
            Subject::Text(text) => self.text_test(text),
            Subject::Number(number, modulus) => self.number_test(number, modulus),
        }
    }

    /// A text, or its size.
    fn sized(&mut self, text: Text) -> Result<Subject, FilterError> {
        if !self.takes(".") {
            return Ok(Subject::Text(text));
        }
        if self.takes_name("size") {
            Ok(Subject::Number(Number::Size(text), self.modulus()?))
        } else {
            Err(self.wrong("after a dot comes size"))
        }
    }

    fn modulus(&mut self) -> Result<Option<Modulus>, FilterError> {
        if !self.takes("%") {
            return Ok(None);
        }
        let at = self.place();
        match self.number() {
            Some(0) => Err(FilterError::new(at, "nothing can be divided by 0")),
            Some(modulus) => Ok(Some(Modulus(modulus))),
            None => Err(self.wrong("after % comes a number")),
        }
    }

    /// A text in parentheses.
    fn argument(&mut self) -> Result<Vec<u8>, FilterError> {
        self.needs("(")?;
        let argument =
            self.bytes().ok_or_else(|| self.wrong("here stands the name of a header, in quotation marks"))?;
        self.needs(")")?;
        Ok(argument)
    }

    fn text_test(&mut self, text: Text) -> Result<Test, FilterError> {
        if let Some(compare) = self.compare() {
            if self.takes_name("null") {
                return match compare {
                    Compare::Equal => Ok(Test::IsNull(text, true)),
                    Compare::NotEqual => Ok(Test::IsNull(text, false)),
                    _ => Err(self.wrong("null is equal to something or not, and neither less nor greater")),
                };
            }
            let with =
                self.bytes().ok_or_else(|| self.wrong("here stands a text in quotation marks, or null"))?;
            return Ok(Test::Text(text, compare, with));
        }
        if self.takes_name("in") {
            return Ok(Test::TextIn(text, self.list(Parser::bytes, "a text in quotation marks")?));
        }
        let at = self.place();
        let how = self.name();
        let Some(how @ ("startsWith" | "endsWith" | "contains")) = how.as_deref() else {
            let message = "here stands ==, !=, <, <=, >, >=, in, startsWith, endsWith or contains";
            return Err(FilterError::new(at, message));
        };
        let with = self.bytes().ok_or_else(|| self.wrong("here stands a text in quotation marks"))?;
        Ok(match how {
            "startsWith" => Test::StartsWith(text, with),
            "endsWith" => Test::EndsWith(text, with),
            _ => Test::Contains(text, Box::new(Finder::new(&with).into_owned())),
        })
    }

    fn number_test(&mut self, number: Number, modulus: Option<Modulus>) -> Result<Test, FilterError> {
        if let Some(compare) = self.compare() {
            let with = self.number().ok_or_else(|| self.wrong("here stands a number or a time"))?;
            return Ok(Test::Number(number, modulus, compare, with));
        }
        if self.takes_name("in") {
            return Ok(Test::NumberIn(number, modulus, self.list(Parser::number, "a number or a time")?));
        }
        Err(self.wrong("here stands ==, !=, <, <=, >, >= or in"))
    }

    fn list<T>(&mut self, one: fn(&mut Parser) -> Option<T>, what: &str) -> Result<Vec<T>, FilterError> {
        self.needs("[")?;
        let mut list = Vec::new();
        loop {
            list.push(one(self).ok_or_else(|| self.wrong(format!("here stands {what}")))?);
            if !self.takes(",") {
                break;
            }
        }
        self.needs("]")?;
        Ok(list)
    }

    fn compare(&mut self) -> Option<Compare> {
        let compare = match self.tokens.get(self.at) {
            Some((_, Token::Sign("=="))) => Compare::Equal,
            Some((_, Token::Sign("!="))) => Compare::NotEqual,
            Some((_, Token::Sign("<"))) => Compare::Less,
            Some((_, Token::Sign("<="))) => Compare::LessOrEqual,
            Some((_, Token::Sign(">"))) => Compare::Greater,
            Some((_, Token::Sign(">="))) => Compare::GreaterOrEqual,
            _ => return None,
        };
        self.at += 1;
        Some(compare)
    }

    fn name(&mut self) -> Option<String> {
        let Some((_, Token::Name(name))) = self.tokens.get(self.at) else { return None };
        let name = name.clone();
        self.at += 1;
        Some(name)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let Some((_, Token::Bytes(bytes))) = self.tokens.get(self.at) else { return None };
        let bytes = bytes.clone();
        self.at += 1;
        Some(bytes)
    }

    fn number(&mut self) -> Option<i64> {
        let Some((_, Token::Number(number))) = self.tokens.get(self.at) else { return None };
        let number = *number;
        self.at += 1;
        Some(number)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_there = matches!(self.tokens.get(self.at), Some((_, Token::Sign(there))) if *there == sign);
        self.at += usize::from(is_there);
        is_there
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let is_there = matches!(self.tokens.get(self.at), Some((_, Token::Name(there))) if there == name);
        self.at += usize::from(is_there);
        is_there
    }

    fn needs(&mut self, sign: &str) -> Result<(), FilterError> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong(format!("here stands {sign:?}"))) }
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(at, _)| *at)
    }

    fn wrong(&self, message: impl Into<String>) -> FilterError {
        FilterError::new(self.place(), message)
    }
}
