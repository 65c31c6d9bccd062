"""A drawing as the openclipart collection keeps them."""


def svg(title="Red Square 01", author="Ann", keywords=("shape", "hash", "red_thing"), color="red"):
    items = "".join(f"<rdf:li>{k}</rdf:li>" for k in keywords)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297mm"
      viewBox="0 0 210 297" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
      xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://web.resource.org/cc/">
      <metadata><rdf:RDF><cc:Work><dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent>
      </dc:creator><dc:title>{title}</dc:title><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>
      </cc:Work></rdf:RDF></metadata>
      <rect x="10" y="10" width="20" height="20" fill="{color}"/></svg>"""
