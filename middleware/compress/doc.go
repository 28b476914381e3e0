// Package compress is content codings: which one a request asks for, and
// encoders and decoders that are borrowed for a body and given back.
//
// It knows bytes and fields, not exchanges; the stage that applies it to
// responses is in package middleware.
//
// A coded response carries an ETag of its own ("x" becomes "x-zstd"), which is
// taken off again in conditional requests. The level at which a body was coded
// may differ from one time to the next, so that the same tag can stand for
// different bytes that decode to the same ones. That is safe because ranges of
// coded responses are never offered nor served.
//
// Bodies that come again and again are coded once: a memo keeps what became of
// them.
//
// Dictionaries (RFC 9842) are bodies of earlier responses. Who names one by its
// hash has it, so that nothing of it is told to anybody else; requests of other
// sites' pages are answered without.
//
// BREACH: whoever can make a browser send requests that a page reflects, and
// can see the length of the answers, can guess secrets in a compressed page
// byte by byte. Options.CrossSite = false leaves the answers to other sites'
// requests alone. Secrets that change with each answer, such as masked CSRF
// tokens, are the better defence.
package compress
