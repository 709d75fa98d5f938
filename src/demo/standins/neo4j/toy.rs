//! Just enough Cypher to answer `RETURN 1 AS n, 'text' AS t, $parameter AS p`, and the typed form of values.

use serde_json::{Map, Value, json};

/// The answer to a statement: its columns, and its only row, each value in the typed form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) fields: Vec<String>,
    pub(super) row: Option<Vec<Value>>,
}

/// What is wrong with a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Evaluates a statement. `parameters` are in the typed form. What is not `RETURN` has no rows.
pub(super) fn evaluate(statement: &str, parameters: &Map<String, Value>) -> Result<Table, Failure> {
    let mut words = words(statement)?.into_iter().peekable();
    match words.next().map(|word| word.to_ascii_uppercase()).as_deref() {
        Some("RETURN") => {}
        Some("MATCH" | "CREATE" | "MERGE" | "UNWIND" | "CALL" | "SHOW" | "WITH") => {
            return Ok(Table::default());
        }
        _ => return Err(syntax(statement)),
    }
    let (mut fields, mut row) = (Vec::new(), Vec::new());
    loop {
        let expression = words.next().ok_or_else(|| syntax(statement))?;
        row.push(value(&expression, parameters)?);
        let named = words.next_if(|word| word.eq_ignore_ascii_case("as")).is_some();
        fields.push(if named { words.next().ok_or_else(|| syntax(statement))? } else { expression });
        match words.next().as_deref() {
            Some(",") => {}
            None => {
                return Ok(Table { fields, row: Some(row) });
            }
            Some(_) => return Err(syntax(statement)),
        }
    }
}

/// Does a statement write? One that is not understood does not.
pub(super) fn writes(statement: &str) -> bool {
    let writing =
        |word: &String| matches!(word.to_ascii_uppercase().as_str(), "CREATE" | "MERGE" | "SET" | "DELETE");
    words(statement).is_ok_and(|words| words.iter().any(writing))
}

/// Words, quoted texts with their quotes, and commas.
fn words(statement: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut characters = statement.trim().trim_end_matches(';').chars().peekable();
    while let Some(first) = characters.next() {
        match first {
            ',' => words.push(",".to_owned()),
            '\'' | '"' => {
                let mut text = String::from(first);
                loop {
                    match characters.next() {
                        Some('\\') => text.extend(characters.next()),
                        Some(end) if end == first => break,
                        Some(other) => text.push(other),
                        None => return Err(syntax(statement)),
                    }
                }
                text.push(first);
                words.push(text);
            }
            space if space.is_whitespace() => {}
            other => {
                let mut word = String::from(other);
                while let Some(next) = characters.next_if(|next| !next.is_whitespace() && *next != ',') {
                    word.push(next);
                }
                words.push(word);
            }
        }
    }
    Ok(words)
}

fn value(expression: &str, parameters: &Map<String, Value>) -> Result<Value, Failure> {
    if let Some(name) = expression.strip_prefix('$') {
        return parameters.get(name).cloned().ok_or_else(|| Failure {
            code: "Neo.ClientError.Statement.ParameterMissing",
            message: format!("Expected parameter(s): {name}"),
        });
    }
    for quote in ['\'', '"'] {
        if let Some(text) = expression.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Ok(typed(&Value::from(text)));
        }
    }
    match expression.to_ascii_lowercase().as_str() {
        "true" => Ok(typed(&Value::Bool(true))),
        "false" => Ok(typed(&Value::Bool(false))),
        "null" => Ok(typed(&Value::Null)),
        number => {
            let integer = number.parse::<i64>().map(Value::from);
            let number = integer.or_else(|_| number.parse::<f64>().map(Value::from));
            number.map(|number| typed(&number)).map_err(|_| syntax(expression))
        }
    }
}

fn syntax(statement: &str) -> Failure {
    Failure {
        code: "Neo.ClientError.Statement.SyntaxError",
        message: format!("This stand-in only knows RETURN of literals and parameters, not: {statement}"),
    }
}

/// The typed form of a plain value: `1` → `{"$type":"Integer","_value":"1"}`.
pub(super) fn typed(plain: &Value) -> Value {
    let (kind, value) = match plain {
        Value::Null => ("Null", Value::Null),
        Value::Bool(_) => ("Boolean", plain.clone()),
        Value::Number(number) if number.is_f64() => ("Float", number.to_string().into()),
        Value::Number(number) => ("Integer", number.to_string().into()),
        Value::String(_) => ("String", plain.clone()),
        Value::Array(items) => ("List", items.iter().map(typed).collect()),
        Value::Object(map) => ("Map", map.iter().map(|(key, item)| (key.clone(), typed(item))).collect()),
    };
    json!({ "$type": kind, "_value": value })
}

/// The plain form of a typed value; of a type that JSON does not have, its text.
pub(super) fn plain(typed: &Value) -> Value {
    let value = &typed["_value"];
    match (typed["$type"].as_str(), value) {
        (Some("Integer" | "Float"), Value::String(text)) => {
            serde_json::from_str(text).unwrap_or_else(|_| value.clone())
        }
        (Some("List"), Value::Array(items)) => items.iter().map(plain).collect(),
        (Some("Map"), Value::Object(map)) => {
            map.iter().map(|(key, item)| (key.clone(), plain(item))).collect()
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_of_literals_and_parameters_has_one_row() {
        let parameters = json!({ "p": typed(&json!([1, { "a": null }])) });
        let table = evaluate(
            "RETURN 1 AS n, -2, 'a, AS \\'b\\'' AS t, $p AS p, true, 1.5;",
            parameters.as_object().unwrap(),
        );
        let table = table.unwrap();
        assert_eq!(table.fields, ["n", "-2", "t", "p", "true", "1.5"]);
        let row = table.row.unwrap();
        assert_eq!(row[0], json!({ "$type": "Integer", "_value": "1" }));
        let plain: Vec<Value> = row.iter().map(plain).collect();
        assert_eq!(json!(plain), json!([1, -2, "a, AS 'b'", [1, { "a": null }], true, 1.5]));
    }

    #[test]
    fn a_statement_that_writes_is_told_from_one_that_reads() {
        for statement in ["CREATE (n)", "match (n) set n.a = 1", "MATCH (n) DELETE n", "MERGE (n)"] {
            assert!(writes(statement), "{statement}");
        }
        for statement in ["RETURN 'CREATE'", "MATCH (n) RETURN n", "SHOW DATABASES", "RETURN 'open"] {
            assert!(!writes(statement), "{statement}");
        }
    }

    #[test]
    fn what_is_not_understood_is_a_syntax_error_and_never_an_answer() {
        for statement in ["", "RETURN", "RETURN 1 AS", "RETURN 1 2", "RETURN 1,", "RETURN 'open", "DROP ALL"]
        {
            let failure = evaluate(statement, &Map::new()).unwrap_err();
            assert_eq!(failure.code, "Neo.ClientError.Statement.SyntaxError", "{statement}");
        }
        let missing = evaluate("RETURN $p", &Map::new()).unwrap_err();
        assert_eq!(missing.code, "Neo.ClientError.Statement.ParameterMissing");
        assert_eq!(evaluate("MATCH (n) RETURN n", &Map::new()), Ok(Table::default()));
    }
}
