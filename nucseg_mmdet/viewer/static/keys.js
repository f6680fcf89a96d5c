/* Keys of the page, but where a control takes them itself. */

/* what: a function by key; a letter is its small one. */
export function listenToKeys(what) {
  document.addEventListener('keydown', (event) => {
    // A letter is one key, with Shift or Caps Lock as well; other keys have names of several.
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey || event.altKey || !what[key]) return;
    if (event.target.matches('input:not([type=checkbox]), select')) {
      if (key === 'Escape') event.target.blur();
      // The slider and the lists need the arrows alone.
      const takesText = !event.target.matches('[type=range], select');
      if (key === 'Escape' || takesText || key.startsWith('Arrow')) return;
    }
    event.preventDefault();
    what[key]();
  });
}
