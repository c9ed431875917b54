//! Places and weights along one axis, in double precision.

use super::method::{Axis, Coordinates, Filter, Method, Rounding};

/// Where in the input the output's element `x` is.
pub fn place(coordinates: Coordinates, axis: &Axis, x: i64) -> f64 {
    let (x, input, scale) = (x as f64, axis.input as f64, axis.scale);
    // The standard aligns by the length before rounding.
    let length = scale * input;
    let single = (length - 1.0).abs() < 1e-9;
    let half_pixel = (x + 0.5) / scale - 0.5;
    match coordinates {
        Coordinates::HalfPixel => half_pixel,
        Coordinates::HalfPixelSymmetric => {
            half_pixel + input / 2.0 * (1.0 - axis.output as f64 / length)
        }
        Coordinates::PytorchHalfPixel if axis.output <= 1 => 0.0,
        Coordinates::PytorchHalfPixel => half_pixel,
        Coordinates::HalfPixelForNearest => (x + 0.5) / scale,
        Coordinates::Asymmetric => x / scale,
        Coordinates::AlignCorners if single => 0.0,
        Coordinates::AlignCorners => x * (input - 1.0) / (length - 1.0),
        Coordinates::CropAndResize => {
            let (begin, end) = axis.roi;
            if single {
                (begin + end) * (input - 1.0) / 2.0
            } else {
                x * (end - begin) * (input - 1.0) / (length - 1.0) + begin * (input - 1.0)
            }
        }
    }
}

/// For each element of the output whether it lies beyond the input.
pub fn beyond(axis: &Axis) -> Vec<bool> {
    let last = (axis.input - 1) as f64;
    let place = |x| place(Coordinates::CropAndResize, axis, x);
    (0..axis.output).map(|x| !(0.0..=last).contains(&place(x))).collect()
}

/// For each element of the output the element of the input that is taken.
pub fn nearest(coordinates: Coordinates, rounding: Rounding, axis: &Axis) -> Vec<i64> {
    let take = |x| {
        let place = place(coordinates, axis, x);
        let taken = match rounding {
            Rounding::Floor => place.floor(),
            Rounding::Ceil => place.ceil(),
            Rounding::PreferFloor => (place - 0.5).ceil(),
            Rounding::PreferCeil => (place + 0.5).floor(),
        };
        (taken as i64).clamp(0, axis.input - 1)
    };
    (0..axis.output).map(take).collect()
}

/// `[output, input]`, row by row: the weight of each element of the input in each of the output.
pub fn matrix(method: &Method, axis: &Axis) -> Vec<f64> {
    let (input, output) = (axis.input as usize, axis.output as usize);
    let mut matrix = vec![0.0; input * output];
    for (x, row) in matrix.chunks_exact_mut(input.max(1)).enumerate() {
        let place = place(method.coordinates, axis, x as i64);
        for (neighbour, weight) in neighbours(method, axis.scale, place) {
            let inside = (0..axis.input).contains(&neighbour);
            if inside || !method.exclude_outside {
                row[neighbour.clamp(0, axis.input - 1) as usize] += weight;
            }
        }
        let sum: f64 = row.iter().sum();
        if method.exclude_outside && sum != 0.0 {
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
    }
    matrix
}

/// The neighbours of a place with their weights, as if the input had no end.
fn neighbours(method: &Method, scale: f64, place: f64) -> Vec<(i64, f64)> {
    let (kernel, reach): (Box<dyn Fn(f64) -> f64>, f64) = match method.filter {
        Filter::Cubic(a) => (Box::new(move |x| cubic(x, a)), 2.0),
        // Nearest neighbours are picked, not weighted.
        Filter::Linear | Filter::Nearest(_) => (Box::new(|x: f64| (1.0 - x.abs()).max(0.0)), 1.0),
    };
    // A smaller output stretches the kernel over all that a pixel of it stands for.
    let stretch = if method.antialias { scale.min(1.0) } else { 1.0 };
    let reach = (reach / stretch).ceil() as i64;
    // A place on an element counts as at the upper end of the interval below it.
    let below = place.ceil() as i64 - 1;
    let offsets = (1 - reach)..=reach;
    let mut weights: Vec<(i64, f64)> = offsets
        .map(|offset| (below + offset, kernel(stretch * ((below + offset) as f64 - place))))
        .collect();
    if method.antialias {
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        weights.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    weights
}

/// Keys' cubic convolution kernel, <https://doi.org/10.1109/TASSP.1981.1163711>.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        a * (((x - 5.0) * x + 8.0) * x - 4.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(input: i64, output: i64) -> Axis {
        let scale = output as f64 / input as f64;
        Axis { axis: 0, input, output, scale, roi: (0.0, 1.0) }
    }

    #[test]
    fn halves_are_rounded_as_the_mode_says() {
        let half = |rounding| nearest(Coordinates::HalfPixel, rounding, &axis(4, 2));
        assert_eq!(half(Rounding::PreferFloor), [0, 2]);
        assert_eq!(half(Rounding::PreferCeil), [1, 3]);
        assert_eq!(half(Rounding::Floor), [0, 2]);
        assert_eq!(half(Rounding::Ceil), [1, 3]);
    }

    #[test]
    fn a_single_element_is_the_first_where_pytorch_has_it_so() {
        let single = axis(4, 1);
        assert_eq!(place(Coordinates::PytorchHalfPixel, &single, 0).to_bits(), 0.0_f64.to_bits());
        assert!(place(Coordinates::HalfPixel, &single, 0) > 1.0);
    }

    #[test]
    fn weights_of_each_element_sum_to_one() {
        for filter in [Filter::Linear, Filter::Cubic(-0.5)] {
            for (antialias, exclude_outside) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let coordinates = Coordinates::HalfPixel;
                let extrapolation = 0.0;
                let method =
                    Method { coordinates, filter, exclude_outside, antialias, extrapolation };
                for (input, output) in [(7, 3), (3, 7), (5, 5), (9, 1)] {
                    let matrix = matrix(&method, &axis(input, output));
                    for row in matrix.chunks(input as usize) {
                        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{row:?}");
                    }
                }
            }
        }
    }
}
