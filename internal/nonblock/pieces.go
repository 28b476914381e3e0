package nonblock

import "net"

// Consume takes the first n bytes from v, and empty pieces behind them.
func Consume(v *net.Buffers, n int) {
	for len(*v) > 0 {
		if m := len((*v)[0]); m > n {
			(*v)[0] = (*v)[0][n:]
			return
		} else {
			n -= m
			*v = (*v)[1:]
		}
	}
}
