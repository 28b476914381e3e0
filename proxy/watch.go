package proxy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the bytes of a file must have been the same before they
// are put to work: editors and orchestrators write in several steps.
const settle = 100 * time.Millisecond

// Watch reloads whenever the bytes of the file change, until ctx ends, as long
// as the running configuration says so (reload.watch). Its folder is watched,
// since editors replace files and Kubernetes swaps a symbolic link beside them,
// and the file itself, which may lie elsewhere behind a link or a mount. last
// is what the file held before the gateway was made.
func (g *Gateway) Watch(ctx context.Context, path string, last []byte) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	var seen []byte // by the last look, when changed
	changed := false
	look := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			g.log.Warn("watching the configuration", "path", path, "error", err)
		case e := <-w.Events:
			// Other files, such as a log, may be written all the time: they are
			// no reason to look, nor to wait.
			if e.Op&^(fsnotify.Write|fsnotify.Chmod) != 0 || filepath.Base(e.Name) == filepath.Base(path) {
				look.Reset(settle)
			}
		case <-look.C:
			w.Add(path) // which may be another file by now; when it is missing, its folder tells when it comes
			text, err := os.ReadFile(path)
			switch {
			case err != nil || bytes.Equal(text, last):
				changed = false
			case !changed || !bytes.Equal(text, seen):
				seen, changed = text, true
				look.Reset(settle)
			default:
				last, changed = text, false
				if s := g.snapshot.Load(); s != nil && s.config.Reload.Watch {
					g.Reload(ctx) // logs and counts what comes of it
				}
			}
		}
	}
}
