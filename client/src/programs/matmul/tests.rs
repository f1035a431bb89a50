//! Goal: blocks are those of the product, whatever the seed, and what is no task is refused with its reason.
//!
//! Method: the schoolbook product over integers that cannot overflow, for sizes and primes at their limits.

use super::*;

/// The largest prime below 2^32.
const LARGEST: u64 = 4_294_967_291;

fn matrix(rows: usize, columns: usize, modulus: u64, seed: u8) -> Matrix {
    let mut noise = Noise::new(&Digest([seed; 32]));
    let row = |_| (0..columns).map(|_| noise.below(modulus)).collect();
    Matrix::new(&(0..rows).map(row).collect::<Vec<_>>()).unwrap()
}

fn schoolbook(a: &Matrix, b: &Matrix, modulus: u64) -> Vec<Vec<u64>> {
    let (a, b) = (a.to_rows(), b.to_rows());
    let cell = |row: &[u64], column: usize| {
        let sum = row.iter().zip(&b).map(|(x, row)| u128::from(*x) * u128::from(row[column]));
        u64::try_from(sum.sum::<u128>() % u128::from(modulus)).unwrap()
    };
    a.iter().map(|row| (0..b[0].len()).map(|column| cell(row, column)).collect()).collect()
}

fn merged(inputs: &[Vec<u8>], seed: u8) -> Vec<u8> {
    let mut all = BTreeMap::new();
    for input in inputs {
        let block = MatMul.run(input, &Digest([seed; 32])).unwrap();
        let Json::Object(block) = Json::parse(&block).unwrap() else { panic!("a block") };
        for (name, rows) in block {
            assert!(all.insert(name, rows).is_none(), "a name twice");
        }
    }
    Json::from(all).to_bytes()
}

#[test]
fn blocks_make_the_product() {
    for modulus in [2, 3, 101, 65_537, LARGEST] {
        for (rows, inner, columns) in [(1, 1, 1), (1, 4, 1), (4, 1, 4), (5, 7, 6), (16, 16, 16)] {
            let a = matrix(rows, inner, modulus, 1);
            let b = matrix(inner, columns, modulus, 2);
            let product = schoolbook(&a, &b, modulus);
            for block in [1, 2, 3, 4, 5, 16, 99] {
                let inputs = MatMul::split(&a, &b, modulus, block).unwrap();
                assert_eq!(inputs.len(), rows.div_ceil(block) * columns.div_ceil(block));
                for seed in 0..3 {
                    let joined = MatMul::join(&merged(&inputs, seed)).unwrap();
                    assert_eq!(joined.to_rows(), product, "{modulus} {block} {seed}");
                }
            }
        }
    }
}

#[test]
fn the_noise_changes_the_way_and_not_the_result() {
    let (a, b) = (matrix(6, 8, LARGEST, 1), matrix(8, 5, LARGEST, 2));
    let inputs = MatMul::split(&a, &b, LARGEST, 8).unwrap();
    let task = Task::parse(&inputs[0]).unwrap();
    let product = schoolbook(&a, &b, LARGEST);
    let mut ways = vec![task.clone()];
    for seed in 0..8 {
        let mut changed = task.clone();
        changed.change_basis(&mut Noise::new(&Digest([seed; 32])));
        assert_eq!(changed.a.times(&changed.b, LARGEST).to_rows(), product);
        ways.push(changed);
    }
    for (index, way) in ways.iter().enumerate() {
        for other in &ways[..index] {
            // Hardly a number stays where it was: what is multiplied is another pair of matrices.
            let pairs = way.a.entries.iter().zip(&other.a.entries);
            assert_eq!(pairs.filter(|(one, other)| one == other).count(), 0);
            let pairs = way.b.entries.iter().zip(&other.b.entries);
            assert_eq!(pairs.filter(|(one, other)| one == other).count(), 0);
        }
    }
}

#[test]
fn what_is_no_task_is_refused_with_its_reason() {
    let fault = |text: &str| {
        let Err(ProgramError::Input(fault)) = MatMul.run(text.as_bytes(), &Digest([0; 32])) else {
            panic!("{text}");
        };
        fault.downcast::<MatMulFault>().map(|fault| *fault).unwrap()
    };
    let task = |a: &str, b: &str, modulus: u64| {
        format!(r#"{{"a":{a},"b":{b},"column":0,"modulus":{modulus},"row":0}}"#)
    };
    assert!(MatMul.run(task("[[1]]", "[[1]]", 2).as_bytes(), &Digest([0; 32])).is_ok());
    for modulus in [0, 1, 4, 561, 65_537 * 3] {
        assert_eq!(fault(&task("[[0]]", "[[0]]", modulus)), MatMulFault::NotPrime { modulus });
    }
    let modulus = 4_294_967_311;
    assert_eq!(fault(&task("[[0]]", "[[0]]", modulus)), MatMulFault::ModulusTooBig { modulus });
    let ragged = MatMulFault::Ragged { row: 1, columns: 1, first: 2 };
    assert_eq!(fault(&task("[[0,1],[0]]", "[[0],[1]]", 2)), ragged);
    for empty in ["[]", "[[]]", "[[],[]]"] {
        assert_eq!(fault(&task(empty, "[[1]]", 2)), MatMulFault::Empty);
    }
    let mismatch = MatMulFault::Mismatch { columns: 2, rows: 1 };
    assert_eq!(fault(&task("[[0,1]]", "[[1]]", 2)), mismatch);
    let reduced = MatMulFault::NotReduced { number: 2 };
    assert_eq!(fault(&task("[[0]]", "[[2]]", 2)), reduced);
    for (a, name) in [("1", "a"), ("[1]", "a"), ("[[-1]]", "a"), (r#"[["1"]]"#, "a")] {
        assert_eq!(fault(&task(a, "[[1]]", 2)), MatMulFault::Member { name: name.into() });
    }
    let more = task("[[1]]", "[[1]]", 2).replace("\"row\":0", "\"row\":0,\"x\":0");
    assert_eq!(fault(&more), MatMulFault::Member { name: "x".into() });
    assert!(matches!(fault("{} "), MatMulFault::Json(_)));
    let long = vec![b' '; INPUT_BYTES_MAX + 1];
    let refused = MatMul.run(&long, &Digest([0; 32]));
    assert!(matches!(refused, Err(ProgramError::TooLong { .. })));
}

#[test]
fn the_largest_task_is_taken_and_one_row_more_is_not() {
    let p = LARGEST;
    let largest = Matrix::new(&vec![vec![p - 1; DIMENSION_MAX]; DIMENSION_MAX]).unwrap();
    let inputs = MatMul::split(&largest, &largest, p, DIMENSION_MAX).unwrap();
    assert!(inputs[0].len() <= INPUT_BYTES_MAX);
    let product = MatMul::join(&merged(&inputs, 7)).unwrap();
    // (p - 1)^2 is 1.
    assert_eq!(product.to_rows(), vec![vec![DIMENSION_MAX as u64; DIMENSION_MAX]; DIMENSION_MAX]);
    let more = Matrix::new(&vec![vec![0; DIMENSION_MAX]; DIMENSION_MAX + 1]).unwrap();
    assert!(MatMul::split(&more, &largest, p, DIMENSION_MAX).is_ok());
    let refused = MatMul::split(&more, &largest, p, DIMENSION_MAX + 1);
    assert!(matches!(refused, Err(MatMulFault::TooLarge { rows: 257, .. })), "{refused:?}");
}

#[test]
fn blocks_that_do_not_fit_together_are_refused() {
    let joined = |text: &str| MatMul::join(text.as_bytes());
    assert_eq!(
        joined(r#"{"0,0":[[1,2]],"1,0":[[3]],"1,1":[[4]]}"#).unwrap().to_rows(),
        [[1, 2], [3, 4]]
    );
    assert_eq!(joined("{}"), Err(MatMulFault::Empty));
    let blocks = [
        r#"{"1,0":[[1]]}"#,
        r#"{"0,1":[[1]]}"#,
        r#"{"0,0":[[1,2]],"0,1":[[3]]}"#,
        r#"{"0,0":[[1]],"1,1":[[3]]}"#,
        r#"{"0":[[1]]}"#,
        r#"{"0,x":[[1]]}"#,
        r#"{"18446744073709551615,0":[[1],[2]]}"#,
        r#"{"0,0":[[1,2]],"1,0":[[3]]}"#,
        "[]",
    ];
    for text in blocks {
        assert!(matches!(joined(text), Err(MatMulFault::Blocks { .. })), "{text}");
    }
}
