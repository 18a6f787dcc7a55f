//! The tables of the object, in its SQLite.

use std::cell::RefCell;
use std::rc::Rc;

use edge::hub::{Database, SCHEMA, Value};
use worker::js_sys::{Function, Reflect};
use worker::wasm_bindgen::prelude::Closure;
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::{Error, Result, SqlStorage, SqlStorageValue, State};

/// The tables.
pub(crate) struct Tables(SqlStorage);

impl Tables {
    pub(crate) fn of(state: &State) -> Self {
        Self(state.storage().sql())
    }

    /// Brings them to what this version of the hub wants.
    pub(crate) fn migrate(&mut self) -> Result<()> {
        // A file of its own has its version in its head; an object may not reach there.
        self.run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)", &[])?;
        let version = match self.run("SELECT version FROM schema_version", &[])?.first().map(Vec::as_slice) {
            Some([Value::Integer(version)]) => usize::try_from(*version).unwrap_or(usize::MAX),
            _ => 0,
        };
        let known = SCHEMA.len();
        let Some(steps) = SCHEMA.get(version..) else {
            let detail =
                format!("its tables have version {version}, and this Worker knows {known}; deploy a newer one");
            return Err(Error::RustError(detail));
        };
        if steps.is_empty() {
            return Ok(());
        }
        for step in steps {
            self.run(step, &[])?;
        }
        self.run("DELETE FROM schema_version", &[])?;
        let known = i64::try_from(known).expect("there are few steps");
        self.run("INSERT INTO schema_version VALUES (?1)", &[Value::Integer(known)])?;
        Ok(())
    }
}

impl Database for Tables {
    type Error = Error;

    fn run(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Vec<Value>>> {
        let values: Vec<JsValue> = values.iter().map(to_js).collect();
        let rows = self.0.exec_raw(sql, values)?;
        rows.raw().map(|row| Ok(row?.into_iter().map(from_js).collect())).collect()
    }
}

fn to_js(value: &Value) -> JsValue {
    match value {
        Value::Null => JsValue::NULL,
        // Numbers of rows and milliseconds: far below 2^53.
        Value::Integer(number) => JsValue::from_f64(*number as f64),
        Value::Text(text) => JsValue::from_str(text),
    }
}

fn from_js(value: SqlStorageValue) -> Value {
    match value {
        SqlStorageValue::Integer(number) => Value::Integer(number),
        SqlStorageValue::String(text) => Value::Text(text),
        // The hub keeps nothing else.
        _ => Value::Null,
    }
}

/// Carries out `work` within a transaction: where it fails, nothing of it was done.
///
/// `transactionSync` has no binding in the crate `worker`; it takes back what was done when its function throws.
pub(crate) fn transaction<T: 'static>(state: &State, work: impl FnOnce() -> Result<T> + 'static) -> Result<T> {
    let done = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&done);
    let function = Closure::once_into_js(move || -> std::result::Result<(), JsValue> {
        let outcome = work();
        let thrown = if outcome.is_ok() { Ok(()) } else { Err(JsValue::from_str("it failed")) };
        *slot.borrow_mut() = Some(outcome);
        thrown
    });
    let storage = state.storage();
    let storage: &JsValue = storage.as_raw().as_ref();
    let transaction: Function = Reflect::get(storage, &JsValue::from_str("transactionSync"))?.unchecked_into();
    let committed = transaction.call1(storage, &function);
    match done.take() {
        Some(Err(error)) => Err(error),
        Some(Ok(value)) => committed.map(|_| value).map_err(Error::from),
        None => Err(committed.err().map_or_else(|| Error::RustError("nothing was done".to_owned()), Error::from)),
    }
}
