"""bertfast: raw text in, a pretrained BERT out."""

import pkgutil

# Run from a source checkout, Python finds this folder before the installed package, and the compiled extension lies in
# the latter alone: look for it there too. `_native` refuses an extension of another version.
__path__ = pkgutil.extend_path(__path__, __name__)
