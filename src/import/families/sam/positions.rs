//! Windows of a grid of tokens, and attention that knows how far apart two cells are.

use crate::import::error::ImportError;
use crate::import::graph::{F32, Graph, Value};
use crate::import::nn::Attention;

/// A square grid cut into square windows; those at the right and below are filled up with zeros.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    /// Width and height of the grid, in cells.
    pub grid: usize,
    /// Width and height of a window, in cells.
    pub side: usize,
}

impl Windows {
    /// How many there are.
    pub(super) fn count(self) -> usize {
        self.grid.div_ceil(self.side).pow(2)
    }

    /// `[1, grid · grid, width]` → `[count, side · side, width]`.
    pub(super) fn cut(self, g: &mut Graph<'_, '_>, x: &Value<F32>, width: usize) -> Value<F32> {
        let (grid, side, across) = (self.grid as i64, self.side as i64, self.grid.div_ceil(self.side) as i64);
        let mut x = g.reshape(x, &[1, grid, grid, width as i64]);
        let missing = (across * side - grid) as usize;
        if missing > 0 {
            x = g.pad_after(&x, &[0, missing, missing, 0]);
        }
        let x = g.reshape(&x, &[across, side, across, side, width as i64]);
        let x = g.transpose(&x, &[0, 2, 1, 3, 4]);
        g.reshape(&x, &[across * across, side * side, width as i64])
    }

    /// The way back; what was filled up is cut off.
    pub(super) fn join(self, g: &mut Graph<'_, '_>, x: &Value<F32>, width: usize) -> Value<F32> {
        let (grid, side, across) = (self.grid as i64, self.side as i64, self.grid.div_ceil(self.side) as i64);
        let x = g.reshape(x, &[across, across, side, side, width as i64]);
        let x = g.transpose(&x, &[0, 2, 1, 3, 4]);
        let mut x = g.reshape(&x, &[1, across * side, across * side, width as i64]);
        if across * side > grid {
            x = g.slice(&x, 1, 0, grid);
            x = g.slice(&x, 2, 0, grid);
        }
        g.reshape(&x, &[1, grid * grid, width as i64])
    }
}

/// Attention inside `count` squares of `side` cells, with decomposed relative positions: to the score of two cells is
/// added what the query says to their distance in rows, and to that in columns.
pub(super) struct Relative<'a> {
    /// Queries, keys and values.
    pub attention: Attention<'a>,
    /// Width and height of a square, in cells.
    pub side: usize,
    /// How many squares.
    pub count: usize,
}

/// What a key's row and column are, as ones among zeros; the same for all layers of one kind.
#[derive(Default)]
pub(super) struct KeyMarks {
    /// By the squares' side and count.
    known: Vec<((usize, usize), Value<F32>)>,
}

impl KeyMarks {
    /// `[count, heads, side · side, 2 · side]`.
    fn get(&mut self, g: &mut Graph<'_, '_>, [side, count, heads]: [usize; 3]) -> Result<Value<F32>, ImportError> {
        if let Some((_, known)) = self.known.iter().find(|(key, _)| *key == (side, count)) {
            return Ok(known.clone());
        }
        let mut values = vec![0.0; side * side * 2 * side];
        for (cell, marks) in values.chunks_exact_mut(2 * side).enumerate() {
            marks[cell / side] = 1.0;
            marks[side + cell % side] = 1.0;
        }
        let marks = g.constant(&[1, 1, side * side, 2 * side], &values)?;
        let marks = g.expand(&marks, &[count, heads, side * side, 2 * side]);
        self.known.push(((side, count), marks.clone()));
        Ok(marks)
    }
}

impl Relative<'_> {
    /// `[count, side · side, heads · width]`; the tables of distances are at `name`.
    ///
    /// Scores and positions are one product: the query gets longer by what it says to every row and column, the key by
    /// ones at its own. A bias of every pair would be as large as the scores again, 0.8 GB for a ViT-B at 1024 pixels.
    pub(super) fn build(
        &self,
        g: &mut Graph<'_, '_>,
        name: &str,
        marks: &mut KeyMarks,
    ) -> Result<Value<F32>, ImportError> {
        let Attention { query, key, value, heads, width } = self.attention;
        let (cells, side) = (self.side * self.side, self.side as i64);
        let split = [0, 0, heads as i64, width as i64];
        let mut heads_first = |x: &Value<F32>| {
            let x = g.reshape(x, &split);
            g.transpose(&x, &[0, 2, 1, 3])
        };
        let (query, key, value) = (heads_first(query), heads_first(key), heads_first(value));
        let marks = marks.get(g, [self.side, self.count, heads])?;

        let rows = self.distances(g, &format!("{name}.rel_pos_h"), width)?;
        let columns = self.distances(g, &format!("{name}.rel_pos_w"), width)?;
        let grid = g.reshape(&query, &[-1, side, side, width as i64]);
        let to_rows = g.matmul(&grid, &rows);
        let turned = g.transpose(&grid, &[0, 2, 1, 3]);
        let to_columns = g.matmul(&turned, &columns);
        let to_columns = g.transpose(&to_columns, &[0, 2, 1, 3]);
        let said = g.concat(&[&to_rows, &to_columns], -1);
        let said = g.reshape(&said, &[self.count as i64, heads as i64, cells as i64, 2 * side]);

        let factor = g.scalar((width as f32).sqrt().recip());
        let scaled = g.mul(&query, &factor);
        let query = g.concat(&[&scaled, &said], -1);
        let key = g.concat(&[&key, &marks], -1);
        let key = g.transpose(&key, &[0, 1, 3, 2]);
        let scores = g.matmul(&query, &key);
        let weights = g.softmax(&scores);
        let context = g.matmul(&weights, &value);
        let context = g.transpose(&context, &[0, 2, 1, 3]);
        Ok(g.reshape(&context, &[0, 0, (heads * width) as i64]))
    }

    /// What a query of each row is multiplied with for every row: `[side, width, side]`, of a table of
    /// `[2 · side - 1, width]` distances.
    fn distances(&self, g: &mut Graph<'_, '_>, name: &str, width: usize) -> Result<Value<F32>, ImportError> {
        let side = self.side as i32;
        let table = g.weight(name, &[2 * self.side - 1, width])?;
        let apart: Vec<i32> = (0..side).flat_map(|query| (0..side).map(move |key| query - key + side - 1)).collect();
        let apart = g.integers(&[self.side, self.side], &apart)?;
        let rows = g.gather(&table, &apart, 0);
        Ok(g.transpose(&rows, &[0, 2, 1]))
    }
}
