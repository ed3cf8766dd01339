() => {
  // The dark switch: the browser's own preference first, the visitor's choice after that.
  const saved = localStorage.getItem('whence-light');
  const dark = () => document.body.classList.contains('dark');
  const label = () => {
    const button = document.getElementById('light-switch');
    if (button) button.setAttribute('aria-pressed', String(dark()));
  };
  if (saved && !new URLSearchParams(location.search).has('__theme')) {
    document.body.classList.toggle('dark', saved === 'dark');
  }
  document.addEventListener('click', (event) => {
    const back = event.target.closest('[data-reveal]');
    if (back) window.whence.reveal(back.dataset.reveal);
    if (!event.target.closest('#light-switch')) return;
    document.body.classList.toggle('dark');
    localStorage.setItem('whence-light', dark() ? 'dark' : 'light');
    label();
  });
  label();

  const visible = (element) => element && element.offsetParent !== null;
  const usable = (id) => {
    const button = document.getElementById(id);
    return visible(button) && !button.disabled ? button : null;
  };
  // Ctrl+Enter presses the main button of the step one is in, or else of the first step that can run.
  const primary = (step) => {
    const button = step && step.querySelector('button.primary:not([disabled])');
    return visible(button) ? button : null;
  };
  // On a busy machine the page may not have drawn Stop yet when Escape is pressed: then it is pressed
  // for the visitor as soon as it appears, if a step was started a moment ago.
  const PATIENCE = 15000;
  let started = -Infinity;
  let waiting = null;
  const stop = () => [...document.querySelectorAll('.w-stop')].find(visible);
  const forgetEscape = () => { if (waiting) waiting.disconnect(); waiting = null; };
  const escape = () => {
    const button = stop();
    if (button) { forgetEscape(); button.click(); return true; }
    if (performance.now() - started > PATIENCE) return false;
    const until = performance.now() + PATIENCE;
    forgetEscape();
    waiting = new MutationObserver(() => {
      const late = stop();
      if (late || performance.now() > until) forgetEscape();
      if (late) late.click();
    });
    waiting.observe(document.body, {childList: true, subtree: true, attributes: true});
    return true;
  };
  document.addEventListener('click', (event) => {
    if (!event.target.closest('button[id$="-run"]')) return;
    started = performance.now();
    forgetEscape();
  }, true);
  // What was typed beside a slider goes to the nearest value that it may have: app/slider.py.
  const settle = (field) => {
    const slider = field.closest?.('.block')?.querySelector('input[type=range]');
    if (!slider || field.type !== 'number') return;
    const typed = Number(field.value || field.min);
    const within = Math.min(Math.max(typed, Number(field.min)), Number(field.max));
    const value = String(field.step === '1' ? Math.round(within) : within);
    if (value === field.value) return;
    field.value = value;
    field.dispatchEvent(new Event('input', {bubbles: true}));
  };
  document.addEventListener('change', (event) => settle(event.target), true);
  // Captured on the way down: no component of the page can keep the keys to itself. An open list
  // takes Escape first.
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      const field = event.target.closest?.('#own-words');  // says what Attribute is to ask
      const here = event.target.closest && !field ? event.target.closest('.w-step') : null;
      const inTab = event.target.closest ? event.target.closest('[role=tabpanel]') : null;
      const button = primary(inTab) || primary(here) || usable('attribute-run') || usable('generate-run');
      if (button) { event.preventDefault(); settle(event.target); button.click(); }
    } else if (event.key === 'Escape') {
      if (event.target.getAttribute?.('aria-expanded') === 'true') return;
      if (escape()) event.preventDefault();
    }
  }, true);

  window.whence = {
    // Mark the open record, in the gallery or in every strip.
    mark(id) { this.markIn('gallery', id); },
    markIn(list, id) {
      for (const card of document.querySelectorAll(`#${list} .w-card`)) {
        if (card.dataset.id === id) card.setAttribute('aria-current', 'true');
        else card.removeAttribute('aria-current');
      }
    },
    // On a narrow screen the record lies below the gallery: go there when one is opened.
    reveal(id) {
      const element = document.getElementById(id);
      if (!element) return;
      const box = element.getBoundingClientRect();
      if (box.top < 0 || box.top > window.innerHeight * 0.8) {
        const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
        element.scrollIntoView({behavior: calm ? 'auto' : 'smooth', block: 'start'});
      }
    },
  };
}
