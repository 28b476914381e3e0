package upstream

// maxSequence bounds the length of a sequence of more servers than one; with
// more servers than that it holds each at least once.
const maxSequence = 4096

// sequence is one round of smooth weighted round robin (nginx): the order in
// which servers of these weights (all at least 1) take turns, by index. 5, 1, 1
// gives 0 0 1 0 2 0 0. Weights are divided by their greatest common divisor;
// if the round is still longer than maxSequence, they are scaled to fit and
// rounded, none below 1.
func sequence(weights []int) []uint32 {
	divisor, total := 0, 0
	for _, w := range weights {
		divisor = gcd(w, divisor)
		total += w
	}
	total /= divisor
	scaled, round := make([]int, len(weights)), 0
	for i, w := range weights {
		w /= divisor
		if total > maxSequence {
			w = max(1, (w*maxSequence+total/2)/total)
		}
		scaled[i] = w
		round += w
	}
	order := make([]uint32, round)
	if round == len(weights) { // all equal
		for i := range order {
			order[i] = uint32(i)
		}
		return order
	}
	credit := make([]int, len(weights))
	for turn := range order {
		best := 0
		for i, w := range scaled {
			credit[i] += w
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= round
		order[turn] = uint32(best)
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
