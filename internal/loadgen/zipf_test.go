package loadgen

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestKeysFollowTheirPopularity compares what is drawn with the weights, by the
// chi-square test at five standard deviations. The draws are always the same.
func TestKeysFollowTheirPopularity(t *testing.T) {
	const keys, draws = 50, 60_000
	for _, s := range []float64{0, 0.5, 0.99, 1, 1.2, 3} {
		z, random := newZipf(keys, s), rand.New(rand.NewPCG(1, 2))
		var drawn [keys]float64
		for range draws {
			drawn[z.draw(random)]++
		}
		var total, chi float64
		for k := range keys {
			total += math.Pow(float64(k+1), -s)
		}
		for k := range keys {
			want := draws * math.Pow(float64(k+1), -s) / total
			chi += (drawn[k] - want) * (drawn[k] - want) / want
		}
		if limit := (keys - 1) + 5*math.Sqrt(2*(keys-1)); chi > limit {
			t.Errorf("exponent %v: chi-square %.0f, want at most %.0f; most popular: %v", s, chi, limit, drawn[:5])
		}
	}
}

func TestKeysStayWithinTheirNumber(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, keys := range []int{1, 2, 3, maxKeys} {
		for _, s := range []float64{0, 0.01, 1, 1.00000001, 10} {
			z := newZipf(keys, s)
			for range 1000 {
				if k := z.draw(random); k < 0 || k >= keys {
					t.Fatalf("%d keys, exponent %v: drew %d", keys, s, k)
				}
			}
		}
	}
}
