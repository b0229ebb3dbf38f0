"""Instructions that stand beside the picture in RecA's condition: what the model is told while it redraws.

RecA wants many and varied ones, from a plain "what is this" to long inventories of attributes (arXiv 2509.07295,
section 3.2; reference "reca_recipe", section 1.2, rule 2). This list is our own: one per line, 4 to 40 words each.
A checkpoint whose language is small brings its own list instead (``templates.txt``).
"""

from __future__ import annotations

_TEXT = """
What does this picture show?
Tell me what you see.
Describe this image for me.
Put the picture into words.
What is going on here?
Write a caption for this.
Explain what the image contains.
Give me a full description.
Say what is in the frame.
How would you describe this scene?
Sum up this picture, please.
What am I looking at?
Report everything that is visible.
Walk me through this image.
Please describe the photo above.
What stands out in this picture?
Describe it in one sentence.
Describe it in three sentences.
Caption this picture in plain English.
List the contents of the image.
Which things can be seen here?
Talk me through what is shown.
Tell a friend about this picture.
What would a viewer notice first?
Describe the picture from left to right.
Describe the picture from top to bottom.
Start with the foreground, then describe the background.
Start with the background, then describe what stands before it.
What is the main subject, and what surrounds it?
Describe the subject and leave out nothing that matters.
Write the alternative text that a web page would need for this image.
Describe this image to somebody who cannot see it.
Describe this picture over the telephone to a person who has to draw it.
Imagine that the image will be lost: write down what has to be remembered.
Give a description from which the picture could be made again.
Write instructions for a painter who has to repeat this picture exactly.
Turn the image into a prompt that would produce the same image.
What prompt would you give a drawing program to get this picture?
If you had to order this picture from an illustrator, what would you ask for?
Describe the image so precisely that no other image fits the description.
How many objects are there, and what are they?
Count the things in this picture and name each of them.
List every object together with its colour.
List every object together with its size.
List every object together with its position in the frame.
Name the objects and say how they are placed relative to each other.
Which object is on the left and which one is on the right?
What is above, what is below, and what lies between?
What is in front of what in this image?
Say which things touch, overlap or hide one another.
For each object tell its kind, its colour, its shape and where it is.
Make an inventory: object, number, colour, material, place.
Describe the layout as if you were filling in a grid of nine cells.
What fills the centre of the image, and what fills the corners?
Describe what each quarter of the picture holds.
Which part of the frame is empty and which part is crowded?
What is the largest thing here, and what is the smallest?
Compare the sizes of the things that you can see.
Sort the visible objects from large to small and describe each briefly.
Sort the visible objects from near to far and describe each briefly.
Which colours appear, and on which objects?
Name the dominant colour and two accents.
Describe the palette of this image.
Describe the colours of the background and of the main subject.
Does the picture look warm or cool, and what makes it so?
Tell which colours lie next to each other and how strongly they contrast.
What colour is each thing, and how light or dark is it?
Describe colour, brightness and saturation, region by region.
Which object has the brightest colour?
Say which colours are missing that one would expect here.
Describe the shapes in this picture.
Which outlines are round and which are angular?
Describe the geometry of the scene: lines, curves, angles and symmetry.
Is the composition symmetrical, and around which axis?
Describe shape and silhouette of the main subject.
Name the simple shapes that the scene is built from.
What patterns repeat in this image?
Describe the edges: are they sharp, soft, or blurred?
Describe the proportions of the main object.
How are the objects turned, and which way do they face?
What materials can you recognise?
Describe the surfaces: smooth, rough, shiny, dull or transparent.
What would it feel like to touch the things in this picture?
Describe the textures that you see, from the finest to the coarsest.
Which surfaces reflect light, and what do they reflect?
Say what every object is probably made of.
Where does the light come from?
Describe light and shadow in this scene.
Is this daylight or artificial light, and how can you tell?
How hard are the shadows, and in which direction do they fall?
Describe the exposure: which areas are bright and which are dark?
What time of day does the light suggest?
Describe how the light shapes the main subject.
Tell me about the lighting, the weather and the season, if they can be guessed.
From which angle was this picture taken?
Describe the viewpoint: height, distance and direction of the camera.
Is this a close-up, a medium shot or a wide shot?
Describe depth: what is near, what is in the middle distance, what is far away?
What is in focus and what is out of focus?
Describe how perspective leads the eye through the picture.
Which lens and which distance might have been used for this view?
How is the subject framed, and how much space is left around it?
Describe the crop: what is cut off at the borders of the image?
What kind of picture is this: photograph, painting, drawing or rendering?
Describe the style of the image.
In which medium does this seem to be made, and what gives it away?
Describe the brushwork, grain or pixels that make up this image.
Which period or school of art does the picture bring to mind, and why?
Is the style realistic or simplified, and in what respects?
Describe how detailed the picture is and where the detail is concentrated.
Name the genre of the picture and justify your answer by what is visible.
What mood does this image have?
Describe the atmosphere, and the visible facts that create it.
What feelings might this picture call up in somebody who sees it?
Is the scene calm or lively, and what makes it so?
Describe the tone of the picture in a few adjectives, then explain each of them.
Where might this be?
Describe the place in which the scene is set.
Is this indoors or outdoors, and what can be seen of the surroundings?
What does the background tell about the location?
Describe the setting first and then what happens in it.
What season is it, judging by what is visible?
Describe the landscape, the sky and the ground.
Describe the room: walls, floor, furniture and what lies about.
Describe the street: buildings, vehicles, signs and people.
What kind of building or space is shown here?
What is happening in this picture?
Who or what is acting, and upon what?
Describe the action that is caught in this moment.
What may have happened just before this picture was taken?
What could happen next, judging by what is shown?
Describe any movement that is visible or suggested.
Describe how the subjects relate to each other.
Which things in the scene belong together, and how do you know?
Are there people or animals, and what are they doing?
Describe posture, gesture and expression of every living being in the image.
Describe the clothes and things worn by anybody who appears.
What animal is it, what does it look like, and how does it hold itself?
Describe the plants in this picture and the state they are in.
Describe the food on show: ingredients, arrangement and dishes.
Describe the vehicle, its colour, its make if evident, and where it stands.
Is there any writing in the picture, and what does it say?
Describe signs, labels, numbers and letters that can be read.
Describe any logo or symbol that is visible.
What tools or machines can you identify?
Describe the furniture and how it is arranged.
Give the picture a title and then describe it.
Give a headline, then two sentences of detail.
Write a caption of at most ten words.
Write a caption of about thirty words.
Write a paragraph about what the picture shows.
Describe the image in five short phrases.
Describe the image with nouns and adjectives only.
Describe the image as a list of facts.
Describe the image as a museum label would.
Describe the image as a newspaper caption would.
Describe the image as an entry in a picture archive, with key words.
Describe the image as a witness would who has to be exact.
Describe the image as a guide would who leads a group through it.
Describe the image as a child might see it.
Describe the image as a photographer would judge it.
Describe the image as a designer would, with an eye for layout and colour.
Describe the image as a scientist would who only records what can be observed.
Describe the image as a poet would, but stay true to what is there.
Describe this picture for a shop's catalogue.
Describe this picture for an encyclopaedia.
Describe this picture for a data set, objectively and completely.
Describe this picture for an audio guide.
Describe this picture without guessing anything that is not visible.
State what is certain in this image, then what is only likely.
Answer in detail: what, where, how many, which colour, which size?
Who, what, where, when and how: answer each from the picture.
Which words would you use to search for this picture?
Give ten key words for this image.
Give tags for the objects, the colours, the setting and the style.
Name the three most important elements and describe how they are arranged.
Name the one thing that makes this picture different from others of its kind.
What detail would most people overlook?
Describe the smallest detail that you can make out.
Describe the least obvious part of the image.
Look at the corners of the picture and tell what is there.
Look at the borders between objects and describe them.
What is behind the main subject?
What stands next to the main subject?
What lies at the lower edge of the picture?
What can be seen at the upper edge of the picture?
What is on the left half, and what is on the right half?
Describe the space between the objects.
How far apart are the things in the picture, compared with their own size?
Describe which objects are alike and in which respects they differ.
Are there several things of one kind, and how do they differ?
How many different kinds of things are there, and how many of each?
If there is more than one object, describe each one separately and then their arrangement.
Take the objects one by one and give each its colour, its shape and its neighbours.
For every colour in the picture tell which object carries it.
For every object in the picture tell what is to its left, to its right, above and below.
State the number, the colour and the position of all objects, and nothing else.
Match colours with objects carefully, so that none of them is confused with another.
Read the image carefully and reproduce its content in words.
Study the picture and give an account that is complete but not wordy.
Observe the picture closely and note what you observe.
Examine the image and report on subject, setting, light and colour.
Look again and add the details that a first glance would miss.
Take in the whole picture, then describe its parts in the order of their importance.
Give the overall impression first and the particulars afterwards.
Begin with the particulars and finish with the overall impression.
Go from the general to the specific while you describe this image.
Describe the image in layers: first shapes, then colours, then textures.
Describe the image in layers: foreground, middle ground and background.
Describe structure, surface and light of what is shown.
Describe form and colour, but do not name the object.
Name the object, then describe its form and colour.
Describe the picture so that it can be told apart from a very similar one.
What would have to change to make this a different picture?
Which features must a copy of this image keep to be recognised?
What would a faithful copy of this image have to get right?
Write down all that a faithful reconstruction of the picture needs.
Give every visual fact required to rebuild this scene from nothing.
Reconstruct the scene in words, object by object and colour by colour.
Recreate this picture as closely as you can.
Look at this picture and produce it again.
Show me the same picture once more.
Repeat the image that you have just seen.
Draw what you see in this image.
Paint this scene again from memory, true to shape and colour.
Keep this picture in mind and render it anew.
Generate an image with the same content as this one.
Make a picture that shows exactly what this one shows.
Produce a new image with the same objects, colours and arrangement.
Copy the scene faithfully, with each thing in its place.
Restore this image from your impression of it.
Create the picture that this description in pixels stands for.
Let the picture appear again just as it was shown to you.
Give a thorough account of the visual content, covering objects, attributes, relations, setting, light, viewpoint \
and style.
Describe all visible entities, their attributes such as colour, size, material and pose, and the spatial relations \
between them.
Provide a dense caption that mentions each object, each of its visible properties and its place relative to the \
others.
Provide a structured description with these parts: subject, background, composition, colour, light, texture and \
mood.
Write a description of the scene that covers the number of objects, their kinds, their colours, and how they are \
ordered in space.
Give a technical analysis of the image: framing, angle, depth of field, exposure, colour balance, contrast and \
sharpness.
Describe the composition in technical terms, such as balance, leading lines, negative space, rhythm and the rule of \
thirds.
Describe the colour design in technical terms: hues, saturation, value, temperature, harmony and contrast between \
neighbouring areas.
Describe the geometry in technical terms: primitives, proportions, alignment, orientation, overlap and the \
distances between the parts.
Describe the lighting in technical terms: direction, softness, colour temperature, highlights, shadows and \
reflections on different materials.
Break the picture down into regions and state for each of them what it shows, which colours it has and how sharply \
it is drawn.
Give for each object a name, a colour, an approximate size in relation to the picture, and the coordinates of its \
centre in words.
List in order: the subject, its attributes, its action, the other objects, their attributes, the place, the light \
and the style.
Describe the image exhaustively, from the overall scene down to textures and small marks, without any guess about \
what is not shown.
Explain the scene to an engineer who has to build a model of it: parts, shapes, colours, sizes, positions and \
materials.
Explain the picture to a stage designer who has to set it up: things, places, colours, lights and the direction of \
view.
Note the visual properties that matter for recognition: category, colour, shape, part structure, pose, number, and \
the context in which things appear.
Describe which object is bound to which colour, which number and which place, so that nothing can be exchanged by \
mistake.
Summarise the image in one sentence, then expand every noun of that sentence with its colour, its size and its \
place.
Give two captions: a short one naming the objects, and a long one adding colours, numbers, positions and the \
background.
What is it, how many are there, what colour are they, where are they, and what is around them?
Give an inventory of everything in the picture that a restorer could work from: each object with its outline, its \
colour at the centre and at the edge, its surface, its shadow, and the distance to its nearest neighbours.
Describe the picture for somebody who will be tested on it: how many objects there are, what each one is, which \
colour belongs to which, what stands left, right, above and below, and what the background looks like.
Write a complete visual specification of this image, naming medium, viewpoint, framing, subject, number and kind of \
all objects, their colours, materials, sizes and positions, the background, the direction of the light and the \
overall mood.
Tell first what kind of image this is, then what it shows, then how the parts are arranged, then which colours and \
textures they have, and at last how light and viewpoint shape the impression.
Analyse the scene as a list of attributes: category, part, colour, pattern, material, texture, size, orientation, \
position, relation to other things, visibility, illumination, and anything that a careful observer would add.
Could you tell me what this image is about?
Would you describe what is shown here in some detail?
Can you name what appears in this picture?
Please look at the image and tell what it depicts.
Please give an accurate description of this picture.
Please list what is visible, then say how it is arranged.
I cannot see the image; what does it look like?
I need a short text about this image, what should it say?
I want to recognise this picture later: what should I remember?
Help me understand this image.
Help me picture this scene by describing it.
Let me know what you find in this picture.
Share what you notice about this image.
Your task is to describe the given picture.
Your answer should contain all that the picture contains.
Observe, then describe: objects, colours, places.
Short answer, please: what does the image show?
Long answer, please: what does the image show, in all its details?
In a few words, what is this?
In your own words, describe the scene.
In simple terms, what can be seen?
In precise terms, what can be seen and where?
What is the content of this image?
What is the subject of this image?
What is the story of this picture?
What is the background of this picture like?
What is unusual about this picture, if anything?
What is typical of the things shown here?
What makes this scene recognisable?
What are the main visual elements and how do they work together?
What are the objects, and what are the relations between them?
What do you recognise, and by which features?
What does the eye meet first, second and third?
What kind of scene does this picture belong to?
Which category would you file this picture under, and why?
Which sentence fits this image best?
Which facts about this image can be checked by looking at it?
Which colours, shapes and textures define this picture?
Which elements form the foreground?
Where is the main subject placed in the frame?
Where are the objects, relative to the centre of the picture?
Where do the brightest and the darkest areas lie?
How is the picture composed?
How are the objects arranged?
How many things can you count in this image?
How would you tell this picture to somebody in the next room?
How would this scene look on a plan drawn from above?
How do the colours of the objects differ from that of the background?
How do light, colour and shape set the subject off from what surrounds it?
"""

TEMPLATES: tuple[str, ...] = tuple(line for line in _TEXT.strip().splitlines() if line)
"""In a fixed order: a template is drawn by its index."""
