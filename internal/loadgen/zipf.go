package loadgen

import (
	"math"
	"math/rand/v2"
)

// zipf draws from 0 … n-1, where the k-th number comes with a weight of
// 1/(k+1)^s, for any s > 0, in constant time and memory (rejection-inversion:
// W. Hörmann, G. Derflinger, "Rejection-inversion to generate variates from
// monotone discrete distributions", 1996). s = 0 draws evenly.
type zipf struct {
	n, s                float64
	first, last, accept float64
}

func newZipf(n int, s float64) zipf {
	z := zipf{n: float64(n), s: s}
	z.first = z.integral(1.5) - 1
	z.last = z.integral(z.n + 0.5)
	z.accept = 2 - z.inverse(z.integral(2.5)-z.weight(2))
	return z
}

func (z *zipf) draw(r *rand.Rand) int {
	if z.s == 0 {
		return r.IntN(int(z.n))
	}
	for {
		u := z.last + r.Float64()*(z.first-z.last)
		x := z.inverse(u)
		k := min(max(math.Round(x), 1), z.n)
		if k-x <= z.accept || u >= z.integral(k+0.5)-z.weight(k) {
			return int(k) - 1
		}
	}
}

// weight is h(x) = 1/x^s.
func (z *zipf) weight(x float64) float64 { return math.Exp(-z.s * math.Log(x)) }

// integral is H(x), an antiderivative of h, stable near s = 1.
func (z *zipf) integral(x float64) float64 {
	l := math.Log(x)
	return expm1Over((1-z.s)*l) * l
}

func (z *zipf) inverse(x float64) float64 {
	t := max(x*(1-z.s), -1)
	return math.Exp(log1pOver(t) * x)
}

// expm1Over is (e^x - 1)/x.
func expm1Over(x float64) float64 {
	if math.Abs(x) > 1e-8 {
		return math.Expm1(x) / x
	}
	return 1 + x/2*(1+x/3*(1+x/4))
}

// log1pOver is log(1+x)/x.
func log1pOver(x float64) float64 {
	if math.Abs(x) > 1e-8 {
		return math.Log1p(x) / x
	}
	return 1 - x*(0.5-x*(1.0/3-x/4))
}
