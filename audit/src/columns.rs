//! Events as Parquet: a row for each, in groups that are bounded, so that memory is.
//!
//! What an event has not is null. `data` is the JSON text as it came, so that nothing of it is lost to a schema.

use crate::error::AuditError;
use crate::read::Entry;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use std::io::Write;
use std::sync::Arc;

/// A group is written when it has so many rows.
const GROUP_ROWS: usize = 65_536;
/// Or when its texts have so many bytes.
const GROUP_BYTES: usize = 16 << 20;

/// A column of values that may be missing.
#[derive(Debug)]
struct Column<T> {
    values: Vec<T>,
    /// 1 where there is one.
    there: Vec<i16>,
}

impl<T> Default for Column<T> {
    fn default() -> Column<T> {
        Column { values: Vec::new(), there: Vec::new() }
    }
}

impl<T> Column<T> {
    fn push(&mut self, value: Option<T>) {
        self.there.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

/// The rows that wait to become a group.
#[derive(Debug, Default)]
struct Group {
    rows: usize,
    bytes: usize,
    epoch: Column<i64>,
    offset: Column<i64>,
    id: Column<ByteArray>,
    time: Column<i64>,
    kind: Column<ByteArray>,
    topic: Column<ByteArray>,
    job: Column<i64>,
    task: Column<ByteArray>,
    queue: Column<ByteArray>,
    state: Column<ByteArray>,
    attempt: Column<i32>,
    worker: Column<i64>,
    error: Column<ByteArray>,
    data: Column<ByteArray>,
}

/// Writes events as Parquet.
pub struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    group: Group,
}

impl<W: Write + Send> std::fmt::Debug for ParquetWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetWriter").field("waiting", &self.group.rows).finish_non_exhaustive()
    }
}

fn failed(error: ParquetError) -> AuditError {
    AuditError::Reader(error.into())
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// [`AuditError::Reader`] when it cannot be written.
    pub fn new(to: W) -> Result<ParquetWriter<W>, AuditError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("minium ", env!("CARGO_PKG_VERSION")).into())
            .build();
        let schema = schema().map_err(failed)?;
        let file = SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        Ok(ParquetWriter { file, group: Group::default() })
    }

    /// Takes an event.
    ///
    /// # Errors
    /// As [`ParquetWriter::new`].
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), AuditError> {
        self.group.push(entry);
        if self.group.rows >= GROUP_ROWS || self.group.bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes what waits, and the file's end.
    ///
    /// # Errors
    /// As [`ParquetWriter::new`].
    pub fn finish(mut self) -> Result<(), AuditError> {
        if self.group.rows > 0 {
            self.write_group()?;
        }
        self.file.close().map(drop).map_err(failed)
    }

    fn write_group(&mut self) -> Result<(), AuditError> {
        let group = std::mem::take(&mut self.group);
        let mut to = self.file.next_row_group().map_err(failed)?;
        group.write(&mut to).and_then(|()| to.close().map(drop)).map_err(failed)
    }
}

impl Group {
    fn push(&mut self, entry: &Entry<'_>) {
        let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
        let (job, position) = (entry.job(), entry.position());
        let job = job.as_ref();
        self.rows += 1;
        self.bytes += entry.text.len();
        self.epoch.push(position.map(|p| p.epoch.cast_signed()));
        self.offset.push(position.map(|p| p.offset.cast_signed()));
        self.id.push(Some(text(&entry.id)));
        self.time.push(entry.time.map(|time| time.as_microsecond()));
        self.kind.push(Some(text(&entry.kind)));
        self.topic.push(Some(text(&entry.topic())));
        self.job.push(job.map(|job| job.id));
        self.task.push(job.map(|job| text(&job.task)));
        self.queue.push(job.map(|job| text(&job.queue)));
        self.state.push(job.map(|job| text(&job.state.to_string())));
        self.attempt.push(job.map(|job| job.attempt));
        self.worker.push(job.and_then(|job| job.worker.as_ref()).map(|worker| worker.id));
        self.error.push(job.and_then(|job| job.error.as_deref()).map(text));
        self.data.push(entry.data.map(|data| text(data.get())));
    }

    /// In the order of [`schema`].
    fn write<W: Write + Send>(&self, to: &mut SerializedRowGroupWriter<'_, W>) -> Result<(), ParquetError> {
        column::<Int64Type, W>(to, &self.epoch)?;
        column::<Int64Type, W>(to, &self.offset)?;
        column::<ByteArrayType, W>(to, &self.id)?;
        column::<Int64Type, W>(to, &self.time)?;
        column::<ByteArrayType, W>(to, &self.kind)?;
        column::<ByteArrayType, W>(to, &self.topic)?;
        column::<Int64Type, W>(to, &self.job)?;
        column::<ByteArrayType, W>(to, &self.task)?;
        column::<ByteArrayType, W>(to, &self.queue)?;
        column::<ByteArrayType, W>(to, &self.state)?;
        column::<Int32Type, W>(to, &self.attempt)?;
        column::<Int64Type, W>(to, &self.worker)?;
        column::<ByteArrayType, W>(to, &self.error)?;
        column::<ByteArrayType, W>(to, &self.data)
    }
}

fn column<T: DataType, W: Write + Send>(
    to: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column<T::T>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the schema has fewer columns than are written".into());
    let mut writer = to.next_column()?.ok_or_else(missing)?;
    writer.typed::<T>().write_batch(&column.values, Some(&column.there), None)?;
    writer.close()
}

/// All may be null: what is missing of an event is not made up.
fn schema() -> Result<Type, ParquetError> {
    const TEXT: (Physical, Option<LogicalType>) = (Physical::BYTE_ARRAY, Some(LogicalType::String));
    const LONG: (Physical, Option<LogicalType>) = (Physical::INT64, None);
    let time = (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS)));
    let columns = [
        ("epoch", LONG),
        ("offset", LONG),
        ("id", TEXT),
        ("time", time),
        ("type", TEXT),
        ("topic", TEXT),
        ("job", LONG),
        ("task", TEXT),
        ("queue", TEXT),
        ("state", TEXT),
        ("attempt", (Physical::INT32, None)),
        ("worker", LONG),
        ("error", TEXT),
        ("data", (Physical::BYTE_ARRAY, Some(LogicalType::Json))),
    ];
    let field = |(name, (physical, logical))| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
    };
    let fields = columns.into_iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Type::group_type_builder("event").with_fields(fields).build()
}
