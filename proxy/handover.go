package proxy

import (
	"errors"
	"os"
)

// HandOver gives the listening sockets to a successor: start is called with
// their descriptors, which it may not close, and returns when the successor
// serves. The caller ends the context of Run then; connections that are open
// are served to their end here, new ones by the successor. Who asks before Run
// serves waits for that. After an error nothing has changed.
func (g *Gateway) HandOver(start func(sockets []*os.File) error) error {
	select {
	case <-g.running:
	case <-g.closed:
	}
	g.reloading.Lock() // no socket comes or goes meanwhile
	defer g.reloading.Unlock()
	if g.state.Load() != uint32(serving) || g.succeeded {
		return errStopping
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	sockets := g.front.Sockets()
	for _, s := range sockets {
		f, err := s.File()
		if err != nil {
			return errors.Join(errors.New("hand over "+s.Address().String()), err)
		}
		files = append(files, f)
	}
	if err := start(files); err != nil {
		return err
	}
	for _, s := range sockets {
		s.Share()
	}
	g.succeeded = true
	return nil
}
