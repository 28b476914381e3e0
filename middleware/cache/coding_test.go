package cache

import (
	"testing"
	"time"
)

func TestOneAtATimeCodesABody(t *testing.T) {
	y := newPlay(t, policy())
	y.now = time.Now().UnixNano() // the background has that clock
	y.fill("GET /", nil, 200, "body", fresh)
	y.look("GET /")
	defer y.l.Release()
	e := &y.l.Entry
	if _, mine := y.c.BeginCoding(e, "br"); !mine {
		t.Fatal("the first one is refused")
	}
	done, mine := y.c.BeginCoding(e, "br")
	if mine || done == nil {
		t.Fatal("two at a time")
	}
	if _, mine := y.c.BeginCoding(e, "gzip"); !mine {
		t.Error("another coding has to wait")
	}
	y.c.CodeLater(e, "br", func([]byte) []byte { t.Error("coded twice"); return nil })
	y.c.KeepCoded(&y.l, e, "br", []byte("bdy"), y.now)
	y.c.EndCoding(e, "br")
	<-done
	if _, mine := y.c.BeginCoding(e, "br"); !mine {
		t.Error("nobody may begin any more")
	}
	y.c.EndCoding(e, "br")
	y.c.EndCoding(e, "gzip")

	// Who asks for it later finds it there.
	coded := make(chan struct{})
	y.c.CodeLater(e, "br", func([]byte) []byte { t.Error("coded again"); return nil })
	y.c.CodeLater(e, "zstd", func([]byte) []byte { close(coded); return nil })
	<-coded
	release, began := make(chan struct{}), make(chan struct{})
	y.c.CodeLater(e, "deflate", func([]byte) []byte { close(began); <-release; return nil })
	<-began
	if done, mine := y.c.BeginCoding(e, "deflate"); mine || done != nil {
		t.Error("a request waits for the background")
	}
	close(release)
}
